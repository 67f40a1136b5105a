/* What the pages of a session do by themselves: times that run, what is happening now, and going on when it is ready.
 *
 * All of it is on the pages without this script, too. Texts from the server are only ever set as text.
 */
(() => {
  'use strict';
  const STEPS = [10, 50, 90]; // below it: handed to Slurm, in the queue, starting
  const RETRY = 3000; // milliseconds
  const ESTIMATE = { hour: '2-digit', minute: '2-digit', hourCycle: 'h23' };

  const now = () => Date.now() / 1000;
  const byId = (id) => document.getElementById(id);
  const set = (element, text) => {
    // A live region speaks whenever it is written to.
    if (element.textContent !== text) {
      element.textContent = text;
    }
  };

  /* A proxy that has lost its hub, or has just been started, answers as well: 503, or 404. */
  const isHub = (answer) => answer.headers.has('X-JupyterHub-Version');

  function span(seconds) {
    const minutes = Math.max(0, Math.floor(seconds / 60));
    const hours = Math.floor(minutes / 60) % 24;
    const days = Math.floor(minutes / 1440);
    if (days) {
      return `${days} d ${hours} h`;
    }
    return hours ? `${hours} h ${minutes % 60} min` : minutes ? `${minutes} min` : 'less than a minute';
  }

  /* A clock that runs to the second, for whoever waits. */
  function waited(seconds) {
    const whole = Math.max(0, Math.floor(seconds));
    return whole < 3600 ? `${Math.floor(whole / 60)} min ${whole % 60} s` : span(whole);
  }

  function hour(at) {
    const date = new Date(at * 1000);
    const today = date.toDateString() === new Date().toDateString();
    const options = today ? ESTIMATE : { weekday: 'short', day: 'numeric', month: 'short', ...ESTIMATE };
    return date.toLocaleString('en-GB', options);
  }

  /* What one shows to people who help, into the clipboard; a page that is not on https may not put anything there. */
  async function copy(button) {
    const said = button.parentElement.querySelector('.snowy-said');
    const answer = await fetch(button.dataset.copy, { cache: 'no-store' }).catch(() => null);
    if (!answer || !answer.ok) {
      set(said, 'The hub does not answer, or knows nothing of it any more: load this page again.');
      return;
    }
    try {
      const text = await answer.text();
      await navigator.clipboard.writeText(text);
      const lines = text.trimEnd().split('\n').length;
      set(said, `Copied: ${lines} lines. What looked like a password or a token was removed: read it before you send it.`);
    } catch (error) {
      set(said, 'Your browser does not let this page copy: download the details instead.');
      console.warn(error);
    }
  }

  function localize(root) {
    for (const button of root.querySelectorAll('[data-copy]')) {
      button.hidden = false;
    }
    for (const element of root.querySelectorAll('time[data-at]')) {
      set(element, hour(Number(element.dataset.at)));
    }
  }

  function tick() {
    for (const element of document.querySelectorAll('[data-since]')) {
      set(element, waited(now() - Number(element.dataset.since)));
    }
    for (const element of document.querySelectorAll('[data-until]')) {
      set(element, span(Number(element.dataset.until) - now()));
    }
    for (const element of document.querySelectorAll('[data-in]')) {
      const left = Number(element.dataset.in) - now();
      set(element, left >= 60 ? `in ${span(left)}` : 'any moment');
    }
    for (const element of document.querySelectorAll('[data-warn]')) {
      if (now() >= Number(element.dataset.warn) && !element.classList.contains('snowy-soon')) {
        element.classList.add('snowy-soon');
        element.setAttribute('role', 'alert');
      }
    }
  }

  /* The home page: a session that has changed is shown anew, unless somebody is about to press one of its buttons. */
  async function look() {
    if (document.hidden) {
      return;
    }
    const answer = await fetch(location.href, { cache: 'no-store' });
    if (!answer.ok) {
      return;
    }
    const page = new DOMParser().parseFromString(await answer.text(), 'text/html');
    const fresh = page.getElementById('snowy-sessions');
    const shown = byId('snowy-sessions');
    const stamps = (list) => [...list.children].map((card) => `${card.id} ${card.dataset.stamp}`).join();
    if (fresh && stamps(fresh) !== stamps(shown) && !shown.contains(document.activeElement)) {
      shown.replaceWith(document.adoptNode(fresh));
      document.querySelector('.snowy-head').replaceWith(document.adoptNode(page.querySelector('.snowy-head')));
      localize(document);
      tick();
    }
  }

  /* As often as the most lively of them needs. */
  function lookAgain() {
    const waits = [...document.querySelectorAll('[data-look]')].map((element) => Number(element.dataset.look));
    setTimeout(() => look().catch(() => {}).finally(lookAgain), 1000 * Math.min(...waits));
  }

  class Waiting {
    constructor(main) {
      Object.assign(this, { main, said: '', stream: null, latest: null, ending: false });
      const button = byId('snowy-notify');
      if ('Notification' in window && Notification.permission === 'default') {
        button.hidden = false;
        button.addEventListener('click', () => this.ask(button));
      }
      // A page that is left on purpose does not follow any more.
      main.addEventListener('submit', () => {
        this.ending = true;
      });
      this.follow();
    }

    async ask(button) {
      const answer = await Notification.requestPermission();
      set(button, answer === 'granted' ? 'You will be told' : 'Your browser does not allow it');
      button.disabled = true;
    }

    follow() {
      this.stream = new EventSource(this.main.dataset.events);
      this.stream.onmessage = (message) => this.show(JSON.parse(message.data));
      // The browser tries again by itself while nobody answers; the hub's refusal ends the stream.
      this.stream.onerror = () => {
        if (this.stream.readyState === EventSource.CLOSED) {
          this.lost();
        }
      };
    }

    show(event) {
      if (event.ready) {
        this.ready();
      } else if (event.failed) {
        this.leave();
      } else if (event.snowy) {
        this.draw(event.snowy);
        if (event.message && event.message !== this.said) {
          this.said = event.message;
          this.note(event.message);
        }
      }
    }

    draw(snowy) {
      this.latest = snowy;
      for (const part of ['sentence', 'why', 'advice', 'note']) {
        const element = byId(`snowy-${part}`);
        set(element, snowy[part]);
        element.hidden = !snowy[part];
      }
      const support = byId('snowy-support');
      if (support) {
        support.hidden = !(snowy.advice ?? '').includes('support');
      }
      const step = STEPS.filter((limit) => snowy.percent >= limit).length;
      [...byId('snowy-steps').children].forEach((item, index) => {
        item.className = index < step ? 'snowy-past' : index === step ? 'snowy-now' : '';
        item.toggleAttribute('aria-current', index === step);
        if (index === step) {
          item.setAttribute('aria-current', 'step');
        }
      });
      const estimate = byId('snowy-estimate');
      estimate.hidden = !snowy.starts_at;
      if (snowy.starts_at) {
        const time = estimate.querySelector('time');
        time.dateTime = new Date(snowy.starts_at * 1000).toISOString();
        time.dataset.at = snowy.starts_at;
        set(time, hour(snowy.starts_at));
        estimate.querySelector('[data-in]').dataset.in = snowy.starts_at;
        tick();
      }
      for (const [id, value] of [['snowy-job', snowy.job_id], ['snowy-node', snowy.node]]) {
        set(byId(id), value);
        byId(id).parentElement.hidden = !value;
      }
      if (snowy.submitted_at) {
        byId('snowy-waited').dataset.since = Math.floor(snowy.submitted_at);
      }
      document.title = `${snowy.title} – JupyterLab`;
    }

    note(text) {
      const item = document.createElement('li');
      const time = document.createElement('time');
      set(time, new Date().toLocaleTimeString('en-GB'));
      item.append(time, text);
      byId('snowy-events').append(item);
      byId('snowy-history').hidden = false;
    }

    ready() {
      this.stream.close();
      document.title = '✔ Ready – JupyterLab';
      set(byId('snowy-sentence'), 'Your session is ready.');
      if ('Notification' in window && Notification.permission === 'granted') {
        const name = this.main.dataset.name;
        const note = new Notification('Your JupyterLab session is ready', { body: name, tag: 'snowy-ready' });
        note.onclick = () => window.focus();
      }
      this.leave();
    }

    /* Load the page again: JupyterHub sends on to the server, or to why there is none. */
    leave() {
      this.stream.close();
      if (!this.ending) {
        location.reload();
      }
    }

    /* The hub was restarted, perhaps: ask until it answers, and go on from what it says. */
    async lost() {
      let state;
      try {
        const answer = await fetch(this.main.dataset.status, { cache: 'no-store' });
        state = answer.ok ? await answer.json() : null;
        if (!answer.ok && isHub(answer) && answer.status < 500) {
          // Signed out, or there is no such server any more: its page says so.
          this.leave();
          return;
        }
      } catch {
        state = null;
      }
      if (this.ending) {
        return;
      }
      if (state && state.pending === 'spawn') {
        this.follow();
      } else if (state && !state.pending) {
        this.leave();
      } else {
        setTimeout(() => this.lost(), RETRY);
      }
    }
  }

  const main = document.querySelector('.snowy-sessions');
  main.addEventListener('click', (event) => {
    const button = event.target.closest('[data-copy]');
    if (button) {
      copy(button);
    }
  });
  for (const log of document.querySelectorAll('.snowy-log')) {
    log.scrollTop = log.scrollHeight;
  }
  localize(document);
  tick();
  setInterval(tick, 1000);
  if (main.dataset.events && main.dataset.kind !== 'stopping') {
    window.snowyWaiting = new Waiting(main);
  }
  if (main.dataset.look) {
    lookAgain();
  }
  if (main.dataset.reload) {
    setInterval(async () => {
      const answer = await fetch(location.href, { cache: 'no-store' }).catch(() => null);
      if (answer && isHub(answer)) {
        location.reload();
      }
    }, 1000 * Number(main.dataset.reload));
  }
  // A job that waits, and that no start of this hub follows: whoever comes to see it goes on waiting for it.
  for (const form of document.querySelectorAll('#snowy-sessions form[action*="/snowy/resume/"]')) {
    const post = { method: 'POST', body: new URLSearchParams(new FormData(form)), redirect: 'manual' };
    fetch(form.action, post).then(look).catch(() => {});
  }
  if (main.dataset.resumeNow) {
    byId(main.dataset.resumeNow).querySelector('form').requestSubmit();
  }
})();
