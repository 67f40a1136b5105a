// The spawn form, while somebody chooses: says what does not go together, what it costs, when it would start.
// Nothing here decides anything: the server reads the same rules again. Without this script the form works as it is.
// Text from the Site, from people and from Slurm is only ever set as textContent or value.
"use strict";

(() => {
  const form = document.getElementById("spawn_form");
  const box = form?.querySelector(".snowy-form");
  if (!box) return;
  const data = JSON.parse(document.getElementById("snowy-data").textContent || "{}");
  const rules = data.rules ?? [];
  const urls = data.urls ?? {};
  const defaults = data.defaults ?? {};
  const by = (id) => document.getElementById(id);
  const declared = data.fields ?? {}; // see snowyspawner/site/fields.py
  const kindOf = (field) => declared[field]?.kind;

  // -- durations and numbers, read as the server reads them (snowyspawner/slurm/times.py, request.py) --------------

  function parseDuration(text) {
    const match = /^(?:(\d{1,4})-)?(\d{1,6}(?::\d{1,6}){0,2})$/.exec(text.trim());
    if (!match) return 0;
    const parts = match[2].split(":").map(Number);
    const inDays = match[1] !== undefined;
    const [hours, minutes, seconds = 0] =
      inDays || parts.length === 3 ? [...parts, 0, 0] : parts.length === 2 ? [0, ...parts] : [0, parts[0], 0];
    return (Number(match[1] ?? 0) * 24 + hours) * 3600 + minutes * 60 + seconds;
  }

  function sayDuration(seconds) {
    const words = [];
    for (const [size, unit] of [[86400, "day"], [3600, "hour"], [60, "minute"], [1, "second"]]) {
      const count = Math.floor(seconds / size);
      seconds %= size;
      if (count) words.push(`${count} ${unit}${count === 1 ? "" : "s"}`);
    }
    return words.join(" ");
  }

  function parseNumber(text, most) {
    return /^[0-9]{1,9}$/.test(text) && Number(text) >= 1 && Number(text) <= most ? Number(text) : 0;
  }

  function gpuOf(text) {
    const [name, count = "1"] = text.split(":", 2);
    const number = /^[0-9]{1,3}$/.test(count || "1") ? Number(count || "1") : 0;
    return text === "none" || text === "0" || !number ? ["none", 0] : [name, number];
  }

  // -- the rules: data, see snowyspawner/choice/rules.py -----------------------------------------------------------

  /** What the rules speak of, from what stands in the fields. A value that cannot be read breaks no rule. */
  function named(values) {
    const text = (field) => (values[field] ?? "").trim() || (declared[field].may_be_empty ? "" : String(defaults[field] ?? ""));
    const names = {};
    for (const [field, { kind }] of Object.entries(declared)) {
      if (kind === "gpu") [names.gpu_type, names.gpu_count] = gpuOf(text(field));
      else if (kind === "duration") names[field] = parseDuration(text(field));
      else if (data.most?.[kind]) names[field] = parseNumber(text(field), data.most[kind]);
      else names[field] = text(field);
    }
    return names;
  }

  function either(names) {
    return names.length > 1 ? `${names.slice(0, -1).join(", ")} or ${names.at(-1)}` : names[0] ?? "nothing";
  }

  function sentence(rule, value) {
    const remedies = Object.entries(rule.instead ?? {}).filter(([, number]) => number >= value).map(([label]) => label);
    const said = rule.value === "time" ? sayDuration(value) : String(value);
    return rule.say.replaceAll("{value}", said) + (remedies.length ? `, or choose ${either(remedies)}` : "");
  }

  /** The sessions that *values* mean, as the server tells them (snowyspawner/choice/several.py). A list that cannot be
      read is a value that cannot. */
  function sessionsOf(values) {
    const alone = [{ values, label: [] }];
    let found = alone;
    for (const [field, { several, kind }] of Object.entries(declared)) {
      const text = values[field] ?? "";
      if (!several || !text.includes(",")) continue;
      const plain = (member) => (kind === "number" && /^[0-9]{1,9}$/.test(member) ? String(Number(member)) : member);
      const members = [...new Set(text.split(",").map((member) => plain(member.trim())))];
      if (members.includes("") || text.split(",").length > data.most_sessions) return alone;
      found = found.flatMap((one) => members.map((member) => ({ values: { ...one.values, [field]: member }, label: [...one.label, member] })));
    }
    return found.length > data.most_sessions ? alone : found;
  }

  /** Return {errors, remarks} of all sessions that are meant: what is not said of each, with the first that it is about. */
  function verdict(values) {
    const sessions = sessionsOf(values);
    if (sessions.length === 1) return verdictOfOne(sessions[0].values);
    const said = sessions.map((session) => verdictOfOne(session.values));
    const together = (kind) => {
      const found = {};
      said.forEach((one, at) => {
        for (const [field, text] of Object.entries(one[kind])) {
          const each = said.every((other) => other[kind][field] === text);
          found[field] ??= each ? text : `for ${sessions[at].label.join(", ")}: ${text}`;
        }
      });
      return found;
    };
    const found = { errors: together("errors"), remarks: together("remarks") };
    const lists = Object.keys(declared).filter((field) => declared[field].several && (values[field] ?? "").includes(","));
    found.remarks[lists.at(-1)] = `Starts ${sessions.length} sessions side by side; you confirm them on the next page.`;
    return found;
  }

  /** Return {errors, remarks} of one session: the first rule that each field breaks, in words. */
  function verdictOfOne(values) {
    const names = named(values);
    const found = { errors: {}, remarks: {} };
    for (const rule of rules) {
      const into = rule.remark ? found.remarks : found.errors;
      if (rule.field in into) continue;
      const meant = Object.entries(rule.when ?? {}).every(([name, wanted]) => wanted.includes(names[name])) &&
        (rule.given ?? []).every((name) => names[name]);
      const value = rule.value ? names[rule.value] : 0;
      if (meant && (rule.most === undefined || rule.most === null || value > rule.most)) {
        into[rule.field] = sentence(rule, value);
      }
    }
    return found;
  }

  // -- reading and writing the fields ------------------------------------------------------------------------------

  function read() {
    const values = {};
    for (const [name, value] of new FormData(form)) {
      if (!name.startsWith("_") && typeof value === "string") values[name] = value;
    }
    return values;
  }

  function controls(field) {
    const found = form.elements.namedItem(field);
    if (!found) return [];
    return (found instanceof RadioNodeList ? [...found] : [found]).filter((element) => element.type !== "hidden");
  }

  function write(values) {
    for (const [field, given] of Object.entries(values)) {
      const value = String(given ?? "");
      const [first, ...others] = controls(field);
      if (!first) continue;
      if (first.type === "checkbox") first.checked = ["1", "on", "true"].includes(value);
      else if (first.type === "radio") ([first, ...others].find((radio) => radio.value === value) ?? addRadio(field, value)).checked = true;
      else {
        if (first.tagName === "SELECT" && ![...first.options].some((option) => option.value === value)) first.add(new Option(value || "–", value));
        first.value = value;
      }
    }
    showWhen("begin" in values);
  }

  /** Put what a line has of several sessions into the section for them; where there is none, into the fields. */
  function writeLists(lists) {
    const fold = by("snowy-several");
    for (const [field, given] of Object.entries(lists)) {
      if (!fold) write({ [field]: given.join(",") });
      for (const control of controls(`_${field}`)) {
        if (control.type === "checkbox") control.checked = given.includes(control.value);
        else control.value = given.join(",");
      }
      if (fold) fold.open = true;
    }
  }

  function make(tag, properties = {}, ...children) {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  }

  /** A value that is not offered is shown as such, not dropped. */
  function addRadio(field, value) {
    const id = `snowy-${field}-other-${controls(field).length}`;
    const radio = make("input", { type: "radio", name: field, value, id, className: "form-check-input" });
    const label = make("label", { htmlFor: id }, make("span", { className: "snowy-name", textContent: value || "–" }),
      " ", make("span", { className: "snowy-text", textContent: "not offered here" }));
    by(`snowy-${field}`).querySelector(".snowy-options").append(make("div", { className: "snowy-option" }, radio, label));
    return radio;
  }

  /** The same choice may be written in several ways. */
  function comparable(field, given) {
    const value = String(given ?? "").trim();
    const kind = kindOf(field);
    if (kind === "duration") return parseDuration(value) || value;
    if (kind === "gpu") return gpuOf(value || "none").join(":");
    if (kind === "begin") return value === "now" ? "" : value;
    if (kind === "flag") return ["1", "on", "true"].includes(value);
    return value;
  }
  const same = (one, other) => Object.keys(other).every((field) => comparable(field, one[field]) === comparable(field, other[field]) || !controls(field).length);

  // -- what is shown -----------------------------------------------------------------------------------------------

  const live = by("snowy-live");
  function announce(text) {
    // The same text twice is no change to a screen reader.
    live.textContent = live.textContent === text ? `${text}\u00a0` : text;
  }

  const labelOf = (field) => {
    const wrapper = box.querySelector(`[data-field="${CSS.escape(field)}"]`);
    return wrapper?.querySelector("legend, label")?.textContent.trim() ?? field;
  };

  /** Show *text* (or nothing) as the field's error or remark, and tie it to the control. */
  function tell(field, kind, text) {
    const wrapper = box.querySelector(`[data-field="${CSS.escape(field)}"]`);
    if (!wrapper) return;
    const id = `snowy-${field}-${kind}`;
    let message = by(id);
    if (!text) message?.remove();
    else {
      if (!message) {
        message = make("div", { id, className: `snowy-${kind}` });
        const after = wrapper.querySelector(":scope > legend") ?? wrapper.querySelector(".snowy-row, select, .snowy-check");
        after.after(message);
      }
      if (message.textContent !== text) message.textContent = text;
    }
    const control = by(`snowy-${field}`);
    if (!control) return;
    const described = ["error", "remark"].map((part) => `snowy-${field}-${part}`).filter(by);
    if (by(`snowy-${field}-said`)?.textContent) described.push(`snowy-${field}-said`);
    if (control.dataset.help) described.push(control.dataset.help);
    if (described.length) control.setAttribute("aria-describedby", described.join(" "));
    else control.removeAttribute("aria-describedby");
    if (by(`snowy-${field}-error`)) control.setAttribute("aria-invalid", "true");
    else control.removeAttribute("aria-invalid");
  }

  const fields = [...new Set([...box.querySelectorAll("[data-field]")].map((element) => element.dataset.field))];
  // What the server said when it sent the page (Slurm's refusals, too, which no rule knows), until something is changed.
  const sent = Object.fromEntries(fields.filter((field) => by(`snowy-${field}-error`)).map((field) => [field, by(`snowy-${field}-error`).textContent]));
  let shown = { ...sent };
  let touched = false;
  let answer = null; // of the last check
  let before = read();

  function show(errors, remarks) {
    for (const field of fields) {
      tell(field, "error", errors[field]);
      tell(field, "remark", errors[field] ? "" : remarks[field]);
      if (errors[field] && !shown[field]) reveal(field);
    }
    const news = Object.entries(errors).filter(([field, text]) => shown[field] !== text);
    if (news.length) announce(news.map(([field, text]) => `${labelOf(field)}: ${text}`).join(". "));
    else if (Object.keys(shown).length && !Object.keys(errors).length) announce("Everything goes together now.");
    shown = { ...errors };
  }

  function reveal(field) {
    for (let fold = by(`snowy-${field}`)?.closest("details"); fold; fold = fold.parentElement.closest("details")) fold.open = true;
  }

  /** Mark what would not go with the other choices, with the reason. It can be chosen all the same. */
  function markUnfit(values, now) {
    const reason = (field, value) => {
      if (comparable(field, values[field]) === comparable(field, value)) return "";
      const then = verdict({ ...values, [field]: value }).errors;
      const found = Object.entries(then).find(([name, text]) => now.errors[name] !== text);
      return found ? found[1] : "";
    };
    for (const option of box.querySelectorAll(".snowy-option")) {
      const radio = option.querySelector("input");
      const place = option.querySelector(".snowy-conflict");
      if (!radio || !place) continue;
      const why = reason(radio.name, radio.value);
      option.classList.toggle("snowy-unfit", Boolean(why));
      place.hidden = !why;
      if (place.textContent !== why) place.textContent = why;
    }
    for (const button of box.querySelectorAll("[data-set]")) {
      const why = reason(button.dataset.set, button.dataset.value);
      button.classList.toggle("snowy-unfit", Boolean(why));
      if (why) button.setAttribute("aria-description", why);
      else button.removeAttribute("aria-description");
      button.title = why;
      const pressed = comparable(button.dataset.set, values[button.dataset.set]) === comparable(button.dataset.set, button.dataset.value);
      button.setAttribute("aria-pressed", String(pressed));
    }
  }

  function describe(values) {
    const [gpu, count] = gpuOf((values.gpu ?? "none").trim());
    const seconds = parseDuration(values.time ?? "");
    const cores = (values.cores ?? "").trim();
    const own = (values.own_environment || values.own_container || "").trim().replace(/\/+$/, "");
    return [
      own ? own.split("/").at(-1) : values.environment,
      values.partition,
      `${cores}\u00a0${cores === "1" ? "core" : "cores"}`,
      gpu === "none" ? "no\u00a0GPU" : `${count}\u00a0×\u00a0${gpu.toUpperCase()}`,
      ...Object.keys(declared).filter((field) => kindOf(field) === "listed").map((field) => values[field]),
      seconds ? sayDuration(seconds) : values.time,
      values.begin && values.begin !== "now" ? `from ${values.begin.replace("T", " ")}` : "",
    ].filter(Boolean).join("\u00a0· ");
  }

  function showCost() {
    const place = by("snowy-bar-cost");
    const wrong = fields.filter((field) => shown[field]);
    place.classList.toggle("snowy-bad", wrong.length > 0);
    const [first, ...others] = wrong;
    place.textContent = first
      ? `✖ ${labelOf(first)}: ${shown[first]}${others.length ? `; look at ${others.map(labelOf).join(", ")}, too` : ""}`
      : answer?.cost ?? "";
  }

  // -- what Slurm has free -----------------------------------------------------------------------------------------

  const fact = (count, words) => make("span", { className: "snowy-fact" }, make("b", { textContent: String(count) }), words);

  const plural = (gpu, count) => gpu.toUpperCase() + (count === 1 ? "" : "s");

  function factsOf(known) {
    const nodes = [];
    if ((known.state ?? "up") !== "up") nodes.push(make("span", { className: "snowy-fact snowy-warning", textContent: `closed at the moment (${known.state})` }));
    if (known.free_cores !== undefined) nodes.push(fact(known.free_cores, `${known.total_cores === undefined ? "" : ` of ${known.total_cores}`} cores free`));
    for (const [key, count] of Object.entries(known.free_gpus ?? {})) nodes.push(fact(count, ` ${plural(key, count)} free`));
    if (known.largest_block !== undefined) {
      nodes.push(make("span", { className: "snowy-fact" }, "largest free block ", make("b", { textContent: String(known.largest_block) }), ` ${known.largest_block === 1 ? "core" : "cores"} on one node`));
    }
    if (known.waiting !== undefined) nodes.push(fact(known.waiting, ` ${known.waiting === 1 ? "job" : "jobs"} waiting`));
    return nodes;
  }

  function briefOf(known, gpu, partition) {
    if ((known.state ?? "up") !== "up") return [make("span", { className: "snowy-fact snowy-warning", textContent: `${partition} is closed at the moment` })];
    // What is not known is not none.
    const free = known.free_gpus?.[gpu];
    if (gpu !== "none" && free !== undefined) return [fact(free, ` ${plural(gpu, free)} free now`)];
    return known.free_cores === undefined ? [] : [fact(known.free_cores, " cores free now")];
  }

  function showFacts(facts, age) {
    if (!facts) return;
    for (const place of box.querySelectorAll("[data-facts]")) {
      const known = facts[place.dataset.facts] ?? {};
      const nodes = place.dataset.gpu === undefined ? factsOf(known) : briefOf(known, place.dataset.gpu, place.dataset.facts);
      place.replaceChildren(...nodes.flatMap((node) => [node, " "]));
    }
    by("snowy-age").textContent = age === null || age === undefined ? "" : `What is free, as of ${age >= 2 ? `${Math.round(age)} seconds` : "a moment"} ago.`;
  }

  function showNote(text) {
    if (text === undefined) return;
    let note = by("snowy-slurm");
    if (!text) note?.remove();
    else {
      if (!note) box.prepend((note = make("p", { id: "snowy-slurm", className: "alert alert-warning" })));
      if (note.textContent !== text) note.textContent = text;
    }
  }

  /** Which projects there are may only be known after the page was sent: then they stand beside the field. */
  function showAccounts(accounts) {
    const field = by("snowy-account");
    if (!accounts?.length || field.tagName === "SELECT" || by("snowy-accounts")) return;
    if (accounts.length === 1 && field.value === accounts[0]) return;
    const buttons = accounts.slice(0, 8).map((account) => {
      const button = make("button", { type: "button", className: "btn btn-sm", textContent: account });
      button.dataset.set = "account";
      button.dataset.value = account;
      return button;
    });
    const group = make("div", { id: "snowy-accounts", className: "snowy-quick snowy-js" }, ...buttons);
    group.setAttribute("role", "group");
    group.setAttribute("aria-label", "Your projects");
    field.after(group);
    const values = read();
    markUnfit(values, verdict(values));
  }

  // -- presets -----------------------------------------------------------------------------------------------------

  const cards = new Map(); // radio → values
  let own = null;

  function valuesOf(radio) {
    const [kind, name] = [radio.value.split(":", 1)[0], radio.value.replace(/^(site|own|course):/, "")];
    return { own: data.own_presets, course: data.of_courses, site: data.presets }[kind]?.[name];
  }

  function collectCards() {
    cards.clear();
    for (const radio of box.querySelectorAll('input[name="_preset"]')) {
      const wanted = radio.value && valuesOf(radio);
      if (wanted) cards.set(radio, wanted);
    }
  }

  /** A course's file was read, or has changed, since the page was sent: take the cards of the page as it is now. */
  async function refreshCards(courses) {
    if (courses === undefined || courses === data.courses) return;
    data.courses = courses;
    try {
      const reply = await fetch(location.href, { credentials: "same-origin" });
      const page = new DOMParser().parseFromString(await reply.text(), "text/html");
      const [now, here] = [page.getElementById("snowy-presets"), by("snowy-presets")];
      const theirs = JSON.parse(page.getElementById("snowy-data")?.textContent || "{}");
      if (!reply.ok || !now || !theirs.of_courses) return;
      const focused = here?.contains(document.activeElement) ? document.activeElement.value : undefined;
      data.of_courses = theirs.of_courses;
      // The cards that one has saved meanwhile are in it, too.
      data.own_presets = theirs.own_presets;
      if (here) here.replaceWith(now);
      else by("snowy-details").before(now);
      sayDurations();
      collectCards();
      showCards(read());
      if (focused !== undefined) [...now.querySelectorAll("input, button")].find((element) => element.value === focused)?.focus();
      announce("There are new cards of your courses above.");
    } catch { /* they come with the next page */ }
  }

  function sayDurations() {
    for (const place of box.querySelectorAll("[data-duration]")) place.textContent = sayDuration(parseDuration(place.dataset.duration)) || place.textContent;
  }

  function showCards(values) {
    const custom = by("snowy-preset-0");
    if (!custom) return;
    const match = [...cards].find(([, wanted]) => same(values, wanted))?.[0];
    if (!match) own = values;
    const chosen = match ?? custom;
    chosen.checked = true;
    for (const card of box.querySelectorAll(".snowy-card")) card.classList.toggle("snowy-chosen", card.contains(chosen));
    by("snowy-own-text").textContent = own ? "As it is set below:" : "Set every detail yourself.";
    by("snowy-own-sum").textContent = own ? describe(own) : "";
  }

  function choose(radio) {
    if (cards.has(radio)) {
      write(cards.get(radio));
      changed();
      announce(`Filled in: ${describe(read())}`);
    } else {
      if (own) write(own);
      by("snowy-details").open = true;
      const values = changed();
      // Nothing of it differs yet from the preset that was chosen before: it is one's own choice all the same.
      radio.checked = true;
      for (const card of box.querySelectorAll(".snowy-card")) card.classList.toggle("snowy-chosen", card.contains(radio));
      announce(`Your own choice: ${describe(values)}. The details are open below.`);
    }
  }

  // -- now, or at … ------------------------------------------------------------------------------------------------

  const begin = by("snowy-begin");
  const picker = by("snowy-begin-picker");
  let kept = "";

  function zoneNow() {
    const parts = new Intl.DateTimeFormat("sv-SE", { timeZone: data.time_zone || undefined, dateStyle: "short", timeStyle: "short" });
    return parts.format(new Date()).replace(" ", "T").slice(0, 16);
  }

  function showWhen(fromValue = true) {
    if (fromValue) by(begin.value.trim() && begin.value.trim() !== "now" ? "snowy-when-at" : "snowy-when-now").checked = true;
    by("snowy-at").hidden = by("snowy-when-now").checked;
    picker.value = /^\d{4}-\d\d-\d\d[T ]\d\d:\d\d/.test(begin.value) ? begin.value.replace(" ", "T") : "";
  }

  // -- asking the server -------------------------------------------------------------------------------------------

  async function ask(url, body, signal) {
    const reply = await fetch(url, {
      method: "POST",
      credentials: "same-origin",
      headers: { "Content-Type": "application/json", Accept: "application/json", "X-XSRFToken": form.elements._xsrf?.value ?? "" },
      body: JSON.stringify(body),
      signal,
    });
    let said = {};
    try { said = await reply.json(); } catch { /* not JSON: an error page */ }
    if (reply.ok || said?.errors || said?.sentence) return said; // refused in words is an answer, too
    throw new Error(reply.status === 403 ? "You are signed out: reload the page." : said.message || "The hub does not answer; try again in a moment.");
  }

  let timer = 0;
  let under_way = null;
  let choices = 0; // so many times something was changed: an answer about an earlier choice is none about this one

  async function check(values) {
    if (!urls.check) {
      form.dataset.state = "alone"; // a form in a file, without a hub
      return;
    }
    under_way?.abort();
    const mine = (under_way = new AbortController());
    try {
      const said = await ask(urls.check, values, mine.signal);
      if (mine.signal.aborted) return;
      answer = said;
      showFacts(said.facts, said.facts_age);
      showAccounts(said.accounts);
      showNote(said.slurm_note);
      refreshCards(said.courses);
      show(touched ? said.errors ?? {} : { ...said.errors, ...sent }, said.remarks ?? {});
      by("snowy-begin-said").textContent = values.begin && said.said?.begin ? `= ${said.said.begin}` : "";
      form.dataset.state = "checked";
    } catch (error) {
      if (mine.signal.aborted) return;
      answer = null; // the rules of the page go on
      form.dataset.state = "alone";
    }
    showCost();
  }

  /** Something changed: show at once what the rules say, and ask the server a little later. */
  function changed(quietly = false) {
    const values = read();
    const now = verdict(values);
    if (!quietly) {
      touched = true;
      choices += 1;
      under_way?.abort();
      // What only the server knows stays until its field is changed, or it has spoken again.
      const rest = Object.entries(shown).filter(([field]) => values[field] === before[field] && !ruled.has(field));
      show({ ...Object.fromEntries(rest), ...now.errors }, now.remarks);
      answer = null;
      hideAnswers();
    }
    before = values;
    markUnfit(values, now);
    showCards(values);
    const seconds = parseDuration(values.time ?? "");
    by("snowy-time-said").textContent = seconds ? `= ${sayDuration(seconds)}` : "";
    by("snowy-begin-said").textContent = "";
    by("snowy-bar-sum").textContent = describe(values);
    by("snowy-details-text").textContent = describe(values);
    showCost();
    form.dataset.state = "checking";
    clearTimeout(timer);
    timer = setTimeout(() => check(values), quietly ? 50 : 350);
    return values;
  }
  const ruled = new Set(rules.filter((rule) => !rule.remark).map((rule) => rule.field));

  // -- estimate, script, link --------------------------------------------------------------------------------------

  function hideAnswers() {
    for (const [id, button] of [["snowy-estimate-answer", "snowy-estimate"], ["snowy-link-answer", "snowy-copy-link"]]) {
      const place = by(id);
      if (place.contains(document.activeElement)) by(button)?.focus();
      place.hidden = true;
    }
  }

  const on = (id, event, act) => by(id)?.addEventListener(event, act);

  on("snowy-estimate", "click", async (event) => {
    event.preventDefault();
    const place = by("snowy-estimate-answer");
    place.hidden = false;
    place.replaceChildren(make("p", { textContent: "Asking Slurm …" }));
    announce("Asking Slurm …");
    const asked = choices;
    try {
      const said = await ask(urls.estimate, read());
      if (asked !== choices) return;
      const wrong = Object.entries(said.errors ?? {}).map(([field, text]) => `${labelOf(field)}: ${text}`).join(". ");
      place.replaceChildren(make("p", { textContent: said.sentence || wrong }));
      if (said.sooner?.values) {
        const use = make("button", { type: "button", className: "btn btn-sm snowy-tool", textContent: "Choose that" });
        use.addEventListener("click", () => {
          write(said.sooner.values);
          by("snowy-estimate").focus();
          announce(`Filled in: ${describe(changed())}`);
        });
        place.append(make("p", { textContent: said.sooner.sentence }), use);
      }
      announce([said.sentence || wrong, said.sooner?.sentence].filter(Boolean).join(" "));
    } catch (error) {
      if (asked !== choices) return;
      place.replaceChildren(make("p", { textContent: error.message }));
      announce(error.message);
    }
    place.scrollIntoView({ block: "nearest" }); // not under the bar
  });

  on("snowy-script", "click", async (event) => {
    event.preventDefault();
    const dialog = by("snowy-dialog");
    const asked = choices;
    try {
      const said = await ask(urls.script, read());
      if (asked !== choices) return;
      if (said.script === undefined) throw new Error(Object.entries(said.errors ?? {}).map(([field, text]) => `${labelOf(field)}: ${text}`).join(". "));
      by("snowy-argv").textContent = ((answer?.argv?.length && answer.argv) || said.argv || []).map((word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`)).join(" ");
      by("snowy-script-text").textContent = said.script;
      dialog.showModal();
    } catch (error) {
      if (asked !== choices) return;
      const place = by("snowy-estimate-answer");
      place.hidden = false;
      place.replaceChildren(make("p", { textContent: error.message }));
      place.scrollIntoView({ block: "nearest" });
      announce(error.message);
    }
  });
  on("snowy-dialog-close", "click", () => by("snowy-dialog").close());
  on("snowy-script-copy", "click", () => copy(by("snowy-script-text").textContent, by("snowy-script-copy"), "Copied"));

  async function copy(text, button, done) {
    const before = button.textContent;
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = done;
      announce(`${done}.`);
      setTimeout(() => { button.textContent = before; }, 3000);
      return true;
    } catch {
      return false; // no permission, or no https: it stands there to be copied by hand
    }
  }

  on("snowy-copy-link", "click", async () => {
    const field = by("snowy-link");
    const values = read();
    if (!answer) await check(values);
    const path = answer?.link ?? `${location.pathname}?${Object.entries(values).map(([name, value]) => `opt-${name}=${encodeURIComponent(value)}`).join("&")}`;
    field.value = new URL(path, location.href).href;
    by("snowy-link-answer").hidden = false;
    by("snowy-link-answer").scrollIntoView({ block: "nearest" });
    if (!(await copy(field.value, by("snowy-copy-link"), "Link copied"))) {
      field.focus();
      field.select();
      announce("The link stands in the field, to be copied.");
    }
  });

  // -- a notebook.py line, presets of one's own --------------------------------------------------------------------

  on("snowy-fill", "click", async (event) => {
    event.preventDefault();
    const place = by("snowy-line-answer");
    let text;
    try {
      const said = await ask(urls.line, { line: by("snowy-line").value });
      if (said.values) {
        write(said.values);
        writeLists(said.lists ?? {});
        text = `Filled in: ${describe(changed())}`;
        if (Object.keys(said.lists ?? {}).length) text += ". The sessions to compare are listed under Start several.";
      } else text = Object.values(said.errors ?? {}).join(". ");
      by("snowy-line").toggleAttribute("aria-invalid", false);
      if (!said.values) by("snowy-line").setAttribute("aria-invalid", "true");
    } catch (error) {
      text = error.message;
    }
    place.textContent = text;
    announce(text);
  });

  on("snowy-save", "click", async (event) => {
    event.preventDefault();
    const field = by("snowy-name");
    const place = by("snowy-name-answer");
    const name = field.value.trim();
    const values = read();
    let text;
    try {
      const said = name ? await ask(urls.preset, { ...values, name }) : { errors: { preset_name: "give it a name first" } };
      if (said.errors && Object.keys(said.errors).length) {
        text = Object.entries(said.errors).map(([at, why]) => (at === "preset_name" ? `Not saved: ${why}` : `${labelOf(at)}: ${why}`)).join(". ");
      } else {
        addCard(name, said.values ?? values);
        showCards(read());
        text = `Saved: there is a card ${name} above.`;
      }
    } catch (error) {
      text = error.message;
    }
    place.textContent = text;
    announce(text);
  });

  function addCard(name, values) {
    (data.own_presets ??= {})[name] = values;
    const known = [...cards.keys()].find((radio) => radio.value === `own:${name}`);
    if (!known) {
      const id = `snowy-preset-own-${box.querySelectorAll(".snowy-card").length}-${Date.now()}`;
      const remove = make("button", { type: "button", className: "btn btn-sm btn-link snowy-delete" }, "Delete", make("span", { className: "visually-hidden", textContent: ` ${name}` }));
      remove.dataset.delete = name;
      const radio = make("input", { type: "radio", name: "_preset", id, value: `own:${name}`, className: "form-check-input" });
      radio.setAttribute("aria-describedby", `${id}-text`);
      const text = make("div", { className: "snowy-text", id: `${id}-text` },
        make("span", { className: "snowy-own", textContent: "saved by you" }), make("span", { className: "snowy-sum", textContent: describe(values) }));
      by("snowy-preset-0").closest(".snowy-card").before(make("div", { className: "snowy-card" }, radio,
        make("label", { className: "snowy-name", htmlFor: id, textContent: name }), text, remove));
    } else known.closest(".snowy-card").querySelector(".snowy-sum").textContent = describe(values);
    collectCards();
  }

  async function deleteCard(button) {
    const name = button.dataset.delete;
    try {
      const said = await ask(urls.preset, { name, delete: true });
      if (said.errors && Object.keys(said.errors).length) throw new Error(Object.values(said.errors).join(". "));
      const card = button.closest(".snowy-card");
      (card.nextElementSibling ?? card.previousElementSibling)?.querySelector("input")?.focus();
      card.remove();
      delete data.own_presets?.[name];
      collectCards();
      showCards(read());
      announce(`${name} is deleted.`);
    } catch (error) {
      announce(error.message);
    }
  }

  // -- beginning ---------------------------------------------------------------------------------------------------

  document.documentElement.classList.add("snowy-has-js");
  // Without JavaScript these are sent with their button; Start is never to send them.
  for (const id of ["snowy-name", "snowy-line"]) by(id)?.removeAttribute("name");
  sayDurations();
  collectCards();

  const details = by("snowy-details");
  const REMEMBER = "snowyspawner-details";
  try {
    if (localStorage.getItem(REMEMBER) === "open") details.open = true;
  } catch { /* a browser that keeps nothing */ }
  details.querySelector("summary").addEventListener("click", () => {
    try {
      localStorage.setItem(REMEMBER, details.open ? "closed" : "open"); // it is about to change
    } catch { /* as above */ }
  });

  form.addEventListener("input", (event) => {
    const target = event.target;
    if (target === picker) {
      begin.value = picker.value;
    } else if (target.name === "_when") {
      if (target.value === "now") {
        kept = begin.value;
        begin.value = "";
      } else begin.value = kept;
      showWhen(false);
    } else if (target === begin) {
      showWhen(false);
    }
    if (target.name === "_preset") choose(target);
    else if (!target.name.startsWith("_") || target.name === "_when" || target === picker) changed();
  });
  box.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button?.dataset.set) {
      write({ [button.dataset.set]: button.dataset.value });
      changed();
    } else if (button?.dataset.delete) {
      event.preventDefault();
      deleteCard(button);
    }
  });
  // Enter in these fields is for them, not for Start.
  const lists = Object.keys(declared).filter((field) => declared[field].several).map((field) => [`snowy-several-${field}`, "snowy-several-go"]);
  for (const [field, button] of [["snowy-line", "snowy-fill"], ["snowy-name", "snowy-save"], ...lists]) {
    on(field, "keydown", (event) => {
      if (event.key !== "Enter") return;
      event.preventDefault();
      by(button).click();
    });
  }
  form.addEventListener("submit", (event) => {
    if (form.dataset.sent) {
      event.preventDefault();
      return;
    }
    form.dataset.sent = "1";
    // Several are shown first.
    if (event.submitter?.id === "snowy-several-go" || sessionsOf(read()).length !== 1) return;
    by("snowy-start").textContent = "Starting …";
    announce("Starting …");
  });
  // The browser may show this page again as it was left.
  window.addEventListener("pageshow", () => {
    delete form.dataset.sent;
    by("snowy-start").textContent = "Start";
  });

  picker.min = zoneNow();
  if (data.time_zone && Intl.DateTimeFormat().resolvedOptions().timeZone !== data.time_zone) {
    by("snowy-begin-help").append(` It is ${zoneNow().slice(11)} there now.`);
  }
  showWhen();
  changed(true);
  (by("snowy-errors") ?? by("snowy-failure"))?.focus();
  window.snowyForm = { read, verdict, write, changed, same };
})();
