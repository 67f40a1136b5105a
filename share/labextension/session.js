/* Warns in JupyterLab before the job ends, also when it ends because nobody uses it; shows in the status bar how long
 * it still lasts and what it uses.
 *
 * A JupyterLab extension that needs no build: what webpack would make of one is the last statement, a container of
 * module federation. For JupyterLab 3 and 4. The hub sends this text with the claim; the launcher puts it on JUPYTER_PATH,
 * with session.json beside it: {"end", "notice": seconds since the epoch, "warn": seconds before the end, "usage": null,
 * or what standalone/sampler.py shows and "had": {"cores", "memory": MB}}.
 */
(() => {
  'use strict';
  const SESSION = new URL('session.json', document.currentScript.src).href;
  const LOOK_EVERY = 30; // seconds
  const LAST_WARNING = 120; // seconds before the end
  const EARLY = 90; // seconds: Slurm may send its warning a minute before it is due
  const SAVE = { label: 'Save all', commandId: 'docmanager:save-all', caption: 'Save all open files' };
  const KEEP = { label: 'Keep it', commandId: 'snowyspawner:keep', caption: 'Keep this session for as long again' };
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

  /* The time of the end by the clock of the user's computer, in 24 hours, as in Slurm and in the form. */
  function hour(left) {
    const end = new Date(Date.now() + left * 1000);
    const options = { hour: '2-digit', minute: '2-digit', hourCycle: 'h23' };
    if (left > 12 * 3600) {
      Object.assign(options, { weekday: 'short', day: 'numeric', month: 'short' });
    }
    return end.toLocaleString([], options);
  }

  /* JupyterLab's page asks the server for kernels, terminals and files every few seconds, for as long as it is in front,
   * and keeps its layout (a workspace) there. That is nobody's use of the session, and jupyter_server leaves out what has
   * this mark when it says when it was used.
   */
  function markOwn(settings) {
    const send = settings.fetch;
    settings.fetch = async (request, ...more) => {
      const url = new URL(request.url || request, location.href);
      const reads = request.method === 'GET';
      if (!(reads || url.pathname.includes('/lab/api/workspaces'))) {
        return send.call(null, request, ...more);
      }
      url.searchParams.set('no_track_activity', '1');
      const { method, headers, credentials, cache, signal } = request;
      const body = reads ? {} : { body: await request.blob() };
      return send.call(null, new Request(url, { method, headers, credentials, cache, signal, ...body }), ...more);
    };
  }

  /* The server takes any question without that mark for use. */
  async function keep(baseUrl) {
    const token = document.cookie.match('\\b_xsrf=([^;]*)\\b'); // as JupyterLab sends it
    const answer = await fetch(new URL('api/kernels', baseUrl), { headers: token ? { 'X-XSRFToken': token[1] } : {} });
    if (!answer.ok) {
      throw new Error(`This session could not be kept: its server answers ${answer.status}.`);
    }
  }

  /* Two digits, and none that say nothing. */
  function short(number) {
    return number >= 10 ? number.toFixed(0) : number >= 0.05 ? String(Number(number.toFixed(1))) : '0';
  }

  const SVG = 'http://www.w3.org/2000/svg';
  const WIDTH = 240;
  const HEIGHT = 36;

  /* A step for each value, a gap where none is known. */
  function drawn(values, most) {
    let path = '';
    let before = false;
    values.forEach((value, at) => {
      if (value !== null) {
        const height = HEIGHT - 1 - Math.min(1, value / most) * (HEIGHT - 2);
        path += `${before ? 'L' : 'M'}${(at * WIDTH) / values.length} ${height}H${((at + 1) * WIDTH) / values.length}`;
      }
      before = value !== null;
    });
    return path;
  }

  const STYLE = {
    button: 'font-size: var(--jp-ui-font-size1); line-height: 24px; height: 24px; padding: 0 6px; margin: 0; border: 0;' +
      'background: none; color: inherit; white-space: nowrap; cursor: pointer',
    panel: 'position: fixed; bottom: 32px; z-index: 9000; box-sizing: border-box; width: 18em; max-width: calc(100vw - 16px);' +
      'padding: 12px; background: var(--jp-layout-color1); color: var(--jp-ui-font-color1);' +
      'font-size: var(--jp-ui-font-size1); border: 1px solid var(--jp-border-color1); box-shadow: var(--jp-elevation-z6)'
  };

  function element(name, style, text = '') {
    const made = document.createElement(name);
    made.style.cssText = style;
    made.textContent = text;
    return made;
  }

  /* What the session uses: a line in the status bar; pressed, it shows how that went. */
  class Meter {
    constructor() {
      this.usage = null;
      this.panel = null;
      this.node = element('button', STYLE.button);
      this.node.type = 'button';
      this.node.className = 'snowyspawner-usage';
      this.node.hidden = true;
      this.node.setAttribute('aria-haspopup', 'dialog');
      this.node.setAttribute('aria-expanded', 'false');
      this.node.addEventListener('click', () => (this.panel ? this.close() : this.open()));
      document.addEventListener('keydown', event => {
        if (event.key === 'Escape' && this.panel) {
          this.close();
          this.node.focus();
        }
      });
      document.addEventListener('pointerdown', event => {
        if (this.panel && !this.panel.contains(event.target) && !this.node.contains(event.target)) {
          this.close();
        }
      });
    }

    /* Name, unit, how it is now, the mean, what there is of it, and the curve; what is not known is left out. */
    get rows() {
      const { now, had, curve, ...mean } = this.usage;
      const gigabytes = megabytes => megabytes / 1000; // as Slurm counts: its MB are MiB
      return [
        ['CPU', 'cores', now.cores, mean.cores, had.cores, curve && curve.cores],
        ['Memory', 'GB', gigabytes(now.memory), gigabytes(mean.memory_peak), had.memory / 1000,
          curve && curve.memory && curve.memory.map(value => (value === null ? null : gigabytes(value)))],
        ['GPU', '%', now.gpu_busy, mean.gpu_busy, 100, curve && curve.gpu_busy]
      ].filter(([, , current]) => Number.isFinite(current));
    }

    draw(usage) {
      this.usage = usage;
      if (!usage || !usage.now || !usage.had) {
        return;
      }
      const [cpu, memory, gpu] = ['CPU', 'Memory', 'GPU'].map(name => this.rows.find(row => row[0] === name));
      this.node.textContent = [
        cpu && `CPU ${short(cpu[2])}/${cpu[4]}`,
        memory && `${short(memory[2])} GB`,
        gpu && `GPU ${gpu[2].toFixed(0)} %`
      ].filter(Boolean).join(' · ');
      this.node.title = 'What this session uses now';
      this.node.hidden = !this.node.textContent;
      if (this.panel) {
        this.fill();
      }
    }

    fill() {
      const parts = [element('strong', '', 'What this session uses')];
      for (const [name, unit, now, mean, most, curve] of this.rows) {
        const of = unit === '%' ? ' %' : ` of ${short(most)} ${unit}`;
        // Of memory it is the most that counts, of all else the mean.
        const whole = name === 'Memory' ? 'at most' : 'on average';
        const row = element('p', 'margin: 8px 0 2px', `${name}: ${short(now)}${of} now, ${short(mean)} ${whole}`);
        parts.push(row);
        if (curve && curve.length > 1) {
          const picture = document.createElementNS(SVG, 'svg');
          picture.setAttribute('viewBox', `0 0 ${WIDTH} ${HEIGHT}`);
          picture.setAttribute('preserveAspectRatio', 'none');
          picture.setAttribute('aria-hidden', 'true');
          picture.style.cssText = `display: block; width: 100%; height: ${HEIGHT}px; border-bottom: 1px solid currentcolor`;
          const path = document.createElementNS(SVG, 'path');
          path.setAttribute('d', drawn(curve, most));
          path.setAttribute('vector-effect', 'non-scaling-stroke');
          path.style.cssText = 'fill: none; stroke: var(--jp-brand-color1); stroke-width: 1.5';
          picture.append(path);
          parts.push(picture);
        }
      }
      parts.push(element('p', 'margin: 8px 0 0; color: var(--jp-ui-font-color2)', `In ${inWords(this.usage.seconds)}`));
      this.panel.replaceChildren(...parts);
    }

    open() {
      this.panel = element('div', STYLE.panel);
      this.panel.className = 'snowyspawner-curves';
      this.panel.setAttribute('role', 'dialog');
      this.panel.setAttribute('aria-label', 'What this session uses');
      this.panel.tabIndex = -1;
      this.fill();
      const right = window.innerWidth - this.node.getBoundingClientRect().right;
      this.panel.style.right = `${Math.max(8, right)}px`;
      document.body.append(this.panel);
      this.panel.focus();
      this.node.setAttribute('aria-expanded', 'true');
    }

    close() {
      this.panel.remove();
      this.panel = null;
      this.node.setAttribute('aria-expanded', 'false');
    }
  }

  class Session {
    constructor(show, dismiss, item, meter) {
      Object.assign(this, { show, dismiss, item, meter, facts: null, unused: 0, skew: 0, looked: 0, stage: 0, seen: 0, told: 0 });
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
      this.meter.draw(this.facts.usage);
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

    /* When it ends because nobody uses it, in seconds since the epoch; 0: it does not, or that is not near. */
    get unusedEnd() {
      return (this.facts.usage && this.facts.usage.unused_end) || 0;
    }

    async tellUnused() {
      const end = this.unusedEnd;
      if (Math.abs(end - this.unused) < 5) {
        return;
      }
      this.unused = end;
      if (!end) {
        await this.dismiss('unused');
        return;
      }
      const left = end - (Date.now() + this.skew) / 1000;
      const others = 'so that others can use its place';
      const message = `Nobody uses this session, and it computes nothing: it ends at ${hour(left)}, ${others}.`;
      await this.show('unused', message, KEEP);
    }

    async tick() {
      const age = (Date.now() - this.looked) / 1000;
      // A hidden page asks nothing, as JupyterLab's own do not; before it warns, it makes sure of the end.
      const unsure = this.facts !== null && this.facts.warn > 0 && this.due > this.stage && age > 5;
      if (unsure || (age >= LOOK_EVERY && !document.hidden)) {
        // Without the server, which JupyterLab says itself, what is known has to do.
        await this.look().catch(error => console.debug('snowyspawner:', error));
      }
      if (this.facts === null) {
        return;
      }
      await this.tellUnused();
      if (!this.facts.end) {
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
        await this.show('end', `This session ends at ${hour(left)} (in ${inWords(left)}). Save your work.`, SAVE);
        this.stage = Math.max(due, left <= this.facts.warn + EARLY ? 1 : 0);
      } else if (due < this.stage) {
        this.stage = due;
        await this.dismiss('end');
      }
      this.item.style.fontWeight = this.stage > 0 ? 'bold' : '';
    }
  }

  /* For a JupyterLab without notifications (before 3.6). */
  function toast(text, label, action) {
    const box = document.createElement('div');
    box.setAttribute('role', 'alert');
    box.className = 'snowyspawner-warning';
    box.style.cssText =
      'position: fixed; right: 16px; z-index: 20000; max-width: 24em; padding: 12px;' +
      'background: var(--jp-layout-color1); color: var(--jp-ui-font-color1); font-size: var(--jp-ui-font-size1);' +
      'border: 1px solid var(--jp-border-color1); border-left: 4px solid var(--jp-warn-color0); box-shadow: var(--jp-elevation-z6)';
    const message = document.createElement('p');
    message.textContent = text;
    message.style.margin = '0 0 8px';
    box.append(message);
    // One above the other.
    box.style.bottom = `${40 + 130 * document.querySelectorAll('.snowyspawner-warning').length}px`;
    for (const [name, run] of [[label, action], ['Close', () => undefined]]) {
      const button = document.createElement('button');
      button.textContent = name;
      button.className = 'jp-mod-styled jp-mod-reject';
      button.style.marginRight = '8px';
      button.addEventListener('click', () => {
        box.remove();
        run();
      });
      box.append(button);
    }
    document.body.append(box);
    return box;
  }

  function activate(app, statusBar) {
    const { commands } = app;
    const { serverSettings } = app.serviceManager;
    commands.addCommand(KEEP.commandId, {
      label: 'Keep this session',
      execute: () => keep(serverSettings.baseUrl)
    });
    try {
      markOwn(serverSettings);
    } catch (error) {
      console.debug('snowyspawner: an open page counts as use:', error);
    }
    const shown = {};
    const dismiss = async kind => {
      const { id, box } = shown[kind] || {};
      delete shown[kind];
      if (id) {
        await commands.execute('apputils:dismiss-notification', { id });
      }
      if (box) {
        box.remove();
      }
    };
    const show = async (kind, message, action) => {
      await dismiss(kind);
      if (commands.hasCommand('apputils:notify')) {
        const options = { autoClose: false, actions: [action] };
        shown[kind] = { id: await commands.execute('apputils:notify', { message, type: 'warning', options }) };
      } else {
        shown[kind] = { box: toast(message, action.label, () => commands.execute(action.commandId)) };
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
    const meter = new Meter();
    if (statusBar) {
      statusBar.bar.registerStatusItem('snowyspawner:usage', {
        item: new statusBar.Widget({ node: meter.node }),
        align: 'right',
        rank: 1001
      });
    }
    const session = new Session(show, dismiss, item, meter);
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
      id: 'snowyspawner:session',
      description: 'Shows what this session uses, and warns before its job ends.',
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
