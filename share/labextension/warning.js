/* Warns in JupyterLab before the job ends, and shows in the status bar how long it still lasts.
 *
 * A JupyterLab extension that needs no build: what webpack would make of one is the last statement, a container of
 * module federation. For JupyterLab 3 and 4. The job script carries this text; the launcher puts it on JUPYTER_PATH,
 * with session.json beside it: {"end", "notice": seconds since the epoch, "warn": seconds before the end}.
 */
(() => {
  'use strict';
  const SESSION = new URL('session.json', document.currentScript.src).href;
  const LOOK_EVERY = 30; // seconds
  const LAST_WARNING = 120; // seconds before the end
  const EARLY = 90; // seconds: Slurm may send its warning a minute before it is due
  let shared = {};

  const plural = (count, unit) => `${count} ${unit}${count === 1 ? '' : 's'}`;

  function inWords(seconds) {
    const minutes = Math.max(1, Math.round(seconds / 60));
    const hours = Math.floor(minutes / 60);
    if (hours === 0) {
      return plural(minutes, 'minute');
    }
    return plural(hours, 'hour') + (minutes % 60 ? ` ${plural(minutes % 60, 'minute')}` : '');
  }

  function inShort(seconds) {
    const minutes = Math.max(1, Math.round(seconds / 60));
    if (minutes <= 120) {
      return `${minutes} min left`;
    }
    const hours = Math.floor(minutes / 60);
    return hours < 48 ? `${hours} h ${minutes % 60} min left` : `${Math.floor(hours / 24)} d ${hours % 24} h left`;
  }

  /* The hour of the end, as the clock of the person's machine will show it; of 24 hours, as Slurm's and the form's. */
  function hour(left) {
    const end = new Date(Date.now() + left * 1000);
    const options = { hour: '2-digit', minute: '2-digit', hourCycle: 'h23' };
    if (left > 12 * 3600) {
      Object.assign(options, { weekday: 'short', day: 'numeric', month: 'short' });
    }
    return end.toLocaleString([], options);
  }

  class Session {
    constructor(show, dismiss, item) {
      Object.assign(this, { show, dismiss, item, facts: null, skew: 0, looked: 0, stage: 0, seen: 0, told: 0 });
    }

    async look() {
      this.looked = Date.now();
      const patience = new AbortController();
      const timer = setTimeout(() => patience.abort(), 10000);
      const answer = await fetch(SESSION, { cache: 'no-store', signal: patience.signal });
      clearTimeout(timer);
      if (!answer.ok) {
        return;
      }
      const first = this.facts === null;
      this.facts = await answer.json();
      // The node's clock counts, not that of a laptop which may be wrong.
      const skew = Date.parse(answer.headers.get('Date')) - Date.now();
      this.skew = Math.abs(skew) > 5000 ? skew : 0;
      if (first) {
        this.seen = this.facts.notice;
      }
    }

    get left() {
      return this.facts.end - (Date.now() + this.skew) / 1000;
    }

    /* 0: nothing to say, 1: ends soon, 2: ends very soon. */
    get due() {
      const { warn } = this.facts;
      if (this.left <= Math.min(LAST_WARNING, warn / 2)) {
        return 2;
      }
      return this.left <= warn ? Math.max(this.stage, 1) : this.left > warn + EARLY ? 0 : this.stage;
    }

    async tick() {
      const age = (Date.now() - this.looked) / 1000;
      // A hidden page asks nothing, as JupyterLab's own do not; before it warns, it makes sure of the end.
      const unsure = this.facts !== null && this.facts.warn > 0 && this.due > this.stage && age > 5;
      if (unsure || (age >= LOOK_EVERY && !document.hidden)) {
        // Without the server, which JupyterLab says itself, what is known has to do.
        await this.look().catch(error => console.debug('snowyspawner:', error));
      }
      if (this.facts === null || !this.facts.end) {
        return;
      }
      const { left } = this;
      this.item.textContent = left > 0 ? inShort(left) : 'session ending';
      this.item.title = `This session ends at ${hour(left)}`;
      if (left <= 0) {
        return;
      }
      const due = this.facts.warn > 0 ? this.due : 0;
      const called = this.facts.notice !== this.seen;
      const moved = this.stage > 0 && due > 0 && Math.abs(this.facts.end - this.told) > 60;
      this.seen = this.facts.notice;
      if (called || moved || due > this.stage) {
        this.told = this.facts.end;
        await this.show(`This session ends at ${hour(left)} (in ${inWords(left)}). Save your work.`);
        this.stage = Math.max(due, left <= this.facts.warn + EARLY ? 1 : 0);
      } else if (due < this.stage) {
        this.stage = due;
        await this.dismiss();
      }
      this.item.style.fontWeight = this.stage > 0 ? 'bold' : '';
    }
  }

  /* For a JupyterLab without notifications (before 3.6). */
  function toast(text, saveAll) {
    const box = document.createElement('div');
    box.setAttribute('role', 'alert');
    box.className = 'snowyspawner-warning';
    box.style.cssText =
      'position: fixed; right: 16px; bottom: 40px; z-index: 20000; max-width: 24em; padding: 12px;' +
      'background: var(--jp-layout-color1); color: var(--jp-ui-font-color1); font-size: var(--jp-ui-font-size1);' +
      'border: 1px solid var(--jp-border-color1); border-left: 4px solid var(--jp-warn-color0); box-shadow: var(--jp-elevation-z6)';
    const message = document.createElement('p');
    message.textContent = text;
    message.style.margin = '0 0 8px';
    box.append(message);
    for (const [label, action] of [['Save all', saveAll], ['Close', () => undefined]]) {
      const button = document.createElement('button');
      button.textContent = label;
      button.className = 'jp-mod-styled jp-mod-reject';
      button.style.marginRight = '8px';
      button.addEventListener('click', () => {
        box.remove();
        action();
      });
      box.append(button);
    }
    document.body.append(box);
    return box;
  }

  function activate(app, statusBar) {
    const { commands } = app;
    let id = '';
    let box = null;
    const dismiss = async () => {
      if (id) {
        await commands.execute('apputils:dismiss-notification', { id });
      }
      if (box) {
        box.remove();
      }
      id = '';
      box = null;
    };
    const show = async message => {
      await dismiss();
      const actions = [{ label: 'Save all', commandId: 'docmanager:save-all', caption: 'Save all open files' }];
      if (commands.hasCommand('apputils:notify')) {
        id = await commands.execute('apputils:notify', { message, type: 'warning', options: { autoClose: false, actions } });
      } else {
        box = toast(message, () => commands.execute('docmanager:save-all'));
      }
    };
    const item = document.createElement('span');
    item.className = 'snowyspawner-time-left';
    item.style.cssText = 'font-size: var(--jp-ui-font-size1); line-height: 24px; padding: 0 6px; white-space: nowrap';
    if (statusBar) {
      statusBar.bar.registerStatusItem('snowyspawner:time-left', {
        item: new statusBar.Widget({ node: item }),
        align: 'right',
        rank: 1000
      });
    }
    const session = new Session(show, dismiss, item);
    let busy = false;
    const tick = async () => {
      if (busy) {
        return;
      }
      busy = true;
      try {
        await session.tick();
      } catch (error) {
        console.warn('snowyspawner:', error);
      } finally {
        busy = false;
      }
    };
    void app.restored.then(() => {
      void tick();
      setInterval(tick, 5000);
      document.addEventListener('visibilitychange', tick);
    });
  }

  /* What JupyterLab itself has loaded of a package: its tokens are told apart by identity. */
  async function own(name) {
    const versions = Object.values(shared[name] || {});
    const version = versions.find(each => each.loaded) || versions[0];
    return version ? (await version.get())() : null;
  }

  async function plugin() {
    let statusbar = null;
    let widgets = null;
    try {
      [statusbar, widgets] = [await own('@jupyterlab/statusbar'), await own('@lumino/widgets')];
    } catch (error) {
      console.debug('snowyspawner: no status bar:', error);
    }
    const found = statusbar && widgets;
    return {
      id: 'snowyspawner:warning',
      description: 'Warns before the job of this session ends.',
      autoStart: true,
      optional: found ? [statusbar.IStatusBar] : [],
      activate: (app, bar) => activate(app, bar ? { bar, Widget: widgets.Widget } : null)
    };
  }

  window._JUPYTERLAB = window._JUPYTERLAB || {};
  window._JUPYTERLAB.snowyspawner = {
    init: scope => {
      shared = scope;
    },
    get: async () => {
      const made = await plugin();
      return () => ({ __esModule: true, default: made });
    }
  };
})();
