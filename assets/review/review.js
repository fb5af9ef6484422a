// The review desk: a queue of cards in the browser, one key per decision, the next card painted at once.
class Desk {
  constructor(data) {
    this.study = data.study; this.token = data.token;
    this.outbox = new Outbox(data.study);
    this.cards = new Map(); this.at = null; this.total = data.total; this.done = 0;
    this.past = []; this.future = []; this.asked = null; this.nonce = 0; this.began = Date.now(); this.made = 0;
    this.keys = keptKeys();
    this.added = []; // classes that the study does not have yet
    this.look = { zoom: 1, contrast: 1, invert: false };
    this.steps = null; this.message = ""; this.sentAt = 0; this.looks = false; this.looked = 0; this.timer = null; this.seen = 0;
    this.reviewer = data.person || read("influence.reviewer", "");
  }

  // -- to and from the server ----------------------------------------------------------------------------------------
  take(data) {
    this.data = data; this.total = data.total;
    if (data.person) this.reviewer = data.person;
    if (data.error) this.message = data.error;
    if (data.steps) this.steps = data.steps;
    const said = new Map((data.said || []).map(([tab, number, words]) => [`${tab}|${number}`, words]));
    for (const [tab, number, rows] of data.kept) this.arrived(tab, number, rows, said.get(`${tab}|${number}`));
    for (const [tab, number, why] of data.refused) this.refused(this.outbox.settle(tab, number), why);
    if (data.batch && data.nonce !== this.seen) {
      this.seen = data.nonce; this.asked = null; this.done = data.batch.done;
      for (const name of data.batch.new_classes) this.add(name);
      for (const card of data.batch.cards) {
        const before = this.cards.get(card.position);
        if (before && this.outbox.concerns(this.reviewer, before.split, before.row_id)) card.mine = before.mine;
        this.cards.set(card.position, card);
        if (isPicture(card.image)) { card.ready = new Image(); card.ready.src = card.image; }
      }
      if (this.at === null || data.batch.jump) this.at = data.batch.start;
    }
    if (data.states && data.heard !== this.heard) { this.heard = data.heard; this.learn(data.states); }
    this.paint(); this.fetch(); this.flush();
  }
  // What holds about the cards at hand by now: rows are decided in other tabs, by other people, and many at once.
  learn({ first, n, done, states }) {
    const said = new Map(states.map((state) => [state.position, state]));
    if (!this.outbox.waiting(this.reviewer).length) this.done = done;
    for (let i = first; i < first + n; i++) {
      const card = this.cards.get(i), state = said.get(i);
      if (!card || this.outbox.concerns(this.reviewer, card.split, card.row_id)) continue;
      card.mine = state?.mine ?? null; card.decided = state?.decided ?? [];
    }
  }
  arrived(tab, number, rows, words) {
    const act = this.outbox.settle(tab, number);
    if (!act || act.kind === "decide") return;
    const expected = act.expected, done = act.kind === "undo" ? "Undone" : "Done again";
    if (!rows.length) this.message = act.of ? "That decision does not stand any more." : act.kind === "undo" ? "Nothing is left to undo." : "Nothing is left to redo.";
    else if (rows.length > 1) this.message = `${done}: ${words}.`; // decided together: no row to show
    else if (expected === undefined || !rows.includes(expected)) { // made on another page: show the row as it stands now
      this.message = `${done}: ${words}.`;
      this.want({ row: rows[0] });
    }
  }
  // The server keeps no such decision: the row stands open again, on screen, with the reason.
  refused(act, why) {
    if (!act) return;
    this.message = why;
    const about = act.kind === "decide" ? act.decisions[0] : null;
    const i = about ? this.past.findLastIndex((step) => step.after.row === about.row && step.after.split === about.split) : -1;
    if (i < 0) return;
    const [step] = this.past.splice(i, 1), card = this.cards.get(step.at);
    if (card) { this.done -= !!card.mine - !!step.before; card.mine = step.before; }
    this.added = this.added.filter((name) => name !== about.label); // the next batch brings back what others gave
    this.at = step.at;
  }
  add(name) { if (!this.data.classes.includes(name) && !this.added.includes(name)) this.added.push(name); }
  want(what) { this.asked = { after: null, row: null, n: 20, ...what, nonce: ++this.nonce + Date.now() }; this.askedAt = Date.now(); this.send(); }
  fetch() {
    const body = this.root?.querySelector(".desk");
    if (body) body.dataset.cards = String(this.cards.size); // how many can be decided about without the server
    if (!this.reviewer || this.asked) return;
    if (this.at === null) return this.want({ n: 6 });
    for (let i = Math.max(0, this.at - 2); i < Math.min(this.total, this.at + 40); i++)
      if (!this.cards.has(i)) { if (i < this.at + 25) this.want({ after: i, n: i <= this.at ? 6 : 50 }); return; }
  }
  refresh() { if (this.reviewer && this.at !== null && !this.looks) { this.looks = true; this.send(); } } // back from another tab
  flush() {
    clearTimeout(this.timer);
    const waiting = this.outbox.waiting(this.reviewer).length;
    if (!waiting && !this.asked) return;
    // At once when idle, gathered while the server works, again if it never answered.
    const since = Date.now() - this.sentAt;
    const wait = this.fresh ? Math.max(0, 250 - since) : Math.max(0, 2500 - since);
    this.timer = setTimeout(() => this.send(), wait);
  }
  send() {
    clearTimeout(this.timer);
    if (!this.reviewer) return;
    if (this.asked && Date.now() - this.askedAt > 6000) { this.asked.nonce = ++this.nonce + Date.now(); this.askedAt = Date.now(); }
    this.fresh = false; this.sentAt = Date.now();
    const acts = this.outbox.waiting(this.reviewer).slice(0, 200).map(({ reviewer, made, expected, ...act }) => act);
    const looks = this.looks || Date.now() - this.looked > 5000; // not with every key: it costs the server a look at the log
    const held = looks ? { first: Math.max(0, (this.at ?? 0) - 20) } : null;
    if (looks) { this.looks = false; this.looked = Date.now(); }
    try { this.out({ reviewer: this.reviewer, acts, want: this.asked, held, again: this.sentAt }); } catch { /* no connection: again below */ }
    this.flush();
  }

  // -- decisions -----------------------------------------------------------------------------------------------------
  card() { return this.cards.get(this.at); }
  digits(card) {
    const names = this.data.classes;
    const own = names.every((name) => /^[0-9]$/.test(name)); // a class that is a digit has its own key
    const known = card.classes.map(([name, chance], i) => [name, chance, own ? name : i < 9 ? String(i + 1) : i === 9 ? "0" : ""]);
    const digits = [..."1234567890"], taken = new Set(known.map(([, , key]) => key));
    const free = [...digits.filter((key) => !taken.has(key)), ...digits.slice(0, 9).map((key) => `⇧${key}`)];
    return [...known, ...this.added.map((name, i) => [name, null, free[i] || ""])]; // their keys stay from card to card
  }
  decide(action, more = {}) {
    const card = this.card();
    if (!card) return;
    const comment = this.comment ? this.comment.value.trim().slice(0, 2000) : "";
    const decision = { split: card.split, row: card.row_id, action, given: card.given, comment, ...more };
    const { tab, number } = this.outbox.add(this.reviewer, "decide", [decision], { ...card.evidence, queue: this.token });
    this.past.push({ at: this.at, before: card.mine, after: decision, of: [tab, number], when: Date.now() / 1000 }); this.future = [];
    if (!card.mine) this.done++;
    card.mine = { ...decision, reviewer: this.reviewer, at: Date.now() / 1000 };
    this.made++; this.message = "";
    this.move(1);
    this.fresh = true; this.flush();
  }
  back(kind) {
    const [from, to] = kind === "undo" ? [this.past, this.future] : [this.future, this.past];
    this.looks = true;
    // Of this page's own steps exactly that one; of what was done before or elsewhere, the last.
    const step = from.pop(), act = this.outbox.add(this.reviewer, kind, [], {}, step ? { of: step.of } : {});
    if (step) {
      const card = this.cards.get(step.at);
      act.expected = step.after.row; to.push(step);
      if (card) { const had = !!card.mine; card.mine = kind === "undo" ? step.before : { ...step.after, reviewer: this.reviewer }; this.done += !!card.mine - had; }
      this.at = step.at; this.message = `${kind === "undo" ? "Undone" : "Done again"}: ${stepWords(step.after)}.`;
    } else this.message = kind === "undo" ? "Undoing an earlier decision…" : "Looking for what was undone…";
    this.paint(); this.fresh = true; this.flush();
  }
  // What the next undo or redo is about: as the server knows it, or of what is not saved yet the last step made here.
  next(kind) {
    if (!this.outbox.waiting(this.reviewer).length) return this.steps && this.steps[kind];
    const step = (kind === "undo" ? this.past : this.future).at(-1);
    return step ? { words: stepWords(step.after), at: step.when } : null;
  }
  nextLine(kind) {
    const step = this.next(kind), name = kind === "undo" ? "Undo" : "Redo";
    return step ? `${name}: ${step.words}, ${ago(Date.now() / 1000 - step.at)}` : "";
  }
  tick() { const line = this.root?.querySelector(".step"), undo = this.nextLine("undo"); if (line && undo) line.textContent = undo; }
  move(by) { this.at = Math.max(0, Math.min(this.total, (this.at ?? 0) + by)); this.look.zoom = 1; this.paint(); this.fetch(); }
  act(name) {
    const card = this.card();
    if (name === "keep" || name === "drop" || name === "unsure") return this.decide(name);
    if (name === "weigh") return this.decide("downweight", { weight: Number(read("influence.review.weight", 0.5)) });
    if (name === "accept") return card && card.suggested !== null ? this.label(card.suggested) : undefined;
    if (name === "undo" || name === "redo") return this.back(name);
    if (name === "previous") return this.move(-1);
    if (name === "next") return this.move(1);
    if (name === "other") return this.number ? this.number.focus() : this.classDialog();
    if (name === "comment") return this.comment && this.comment.focus();
    if (name === "help") return this.helpDialog();
    if (name === "zoom") { this.look.zoom = this.look.zoom >= 4 ? 1 : this.look.zoom * 2; return this.paint(); }
    if (name === "contrast") { const l = this.look; if (l.contrast < 3) l.contrast++; else { l.contrast = 1; l.invert = !l.invert; } return this.paint(); }
  }
  label(name) {
    const card = this.card();
    if (!card) return;
    const same = name === card.given || (card.error !== null && asNumber(name) === asNumber(card.given));
    if (same) this.decide("keep"); else this.decide("relabel", { label: name });
  }
  press(event) {
    const target = event.composedPath()[0];
    if (event.repeat || event.ctrlKey || event.metaKey || event.altKey || event.isComposing || event.defaultPrevented) return;
    if (target.closest?.("input, textarea, select, [contenteditable]:not([contenteditable=false]), dialog")) return;
    if (this.root.querySelector("dialog[open]") || document.querySelector('[role="dialog"], [data-baseweb="popover"] [role="listbox"]')) return;
    if ((event.key === "Enter" || event.key === " ") && target.closest?.("button, a, summary, [role=button]")) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const card = this.card();
    const name = Object.keys(this.keys).find((n) => this.keys[n] === key) || (key === "Enter" ? "accept" : "");
    if (!name && this.number && /^[0-9.+-]$/.test(key)) { // a number begins: the rest is typed into its field
      event.preventDefault();
      this.number.value = key; this.number.focus();
      return;
    }
    const typed = /^[0-9]$/.test(key) ? key : event.shiftKey && /^Digit[1-9]$/.test(event.code) ? `⇧${event.code.at(-1)}` : "";
    const picked = !name && card && typed && this.digits(card).find(([, , digit]) => digit === typed);
    if (!name && !picked) return;
    event.preventDefault();
    if (picked) this.label(picked[0]); else this.act(name);
  }

  // -- drawing -------------------------------------------------------------------------------------------------------
  button(text, key, css, run, title = "") {
    const made = el("button", css, text, key ? el("kbd", "", shown(key)) : null);
    made.type = "button"; made.title = title;
    made.addEventListener("click", (event) => { if (event.detail) made.blur(); run(); });
    return made;
  }
  paint() {
    if (!this.root) return;
    // An answer of the server that arrives while somebody types takes neither the letters nor the field.
    const fields = ["comment", "number"].filter((name) => this[name]?.ownerCard === this.at);
    const typed = fields.map((name) => [name, this[name].value]);
    const focused = fields.some((name) => this.root.activeElement === this[name]);
    const body = this.root.querySelector(".desk");
    const card = this.card();
    if (!this.reviewer) {
      body.replaceChildren(this.door());
      if (document.activeElement === document.body) body.querySelector("input").focus(); // nobody is busy elsewhere
      return;
    }
    if (focused && body.dataset.at === String(this.at)) return this.header(body.querySelector("header"));
    const top = el("header", ""); this.header(top);
    const inside = card ? this.main(card) : el("div", "empty", el("b", "", this.at !== null && this.at >= this.total ? "The queue is done." : "Loading…"),
      el("p", "soft", this.at !== null && this.at >= this.total ? `You decided about ${this.done} of ${this.total} rows. The screen Decisions has the patch and the cleaned data.` : ""));
    body.replaceChildren(top, inside);
    body.dataset.at = String(this.at);
    for (const [name, value] of typed) if (value && this[name]?.ownerCard === this.at) this[name].value = value;
  }
  header(top) {
    const waiting = this.outbox.waiting(this.reviewer).length, minutes = (Date.now() - this.began) / 60000;
    const bar = el("span", "bar", el("i", "")); bar.firstChild.style.width = `${this.total ? 100 * this.done / this.total : 0}%`;
    const pace = this.made > 4 && minutes > 0.1 ? ` · ${Math.round(this.made / minutes)} a minute` : "";
    const place = this.at === null ? "" : `row ${Math.min(this.at + 1, this.total).toLocaleString()} of ${this.total.toLocaleString()}`;
    top.replaceChildren(el("h2", "", this.data.title), el("span", "soft", place), bar, el("span", "soft", `${this.done.toLocaleString()} decided${pace}`),
      waiting ? el("span", "unsaved", `${waiting} not saved yet`) : null, this.outbox.unkept ? el("span", "unsaved", "this browser keeps nothing: do not close it") : null,
      el("span", "gap"), el("span", "soft", this.reviewer), this.button("Keys", this.keys.help, "small", () => this.helpDialog()));
    for (const part of [...top.childNodes]) if (part.textContent === "null") part.remove();
  }
  main(card) {
    const left = el("div", "left", subject(card, this.look), verdictLine(card), el("p", "why", `Row ${card.row_id}: ${card.reasons.join(" · ")}`));
    for (const d of card.mine ? [card.mine] : []) left.append(el("p", "mine", `You decided: ${decisionWords(d)}${d.comment ? ` (${d.comment})` : ""}`));
    for (const d of card.decided) left.append(el("p", "mine", `Already decided by ${d.reviewer}: ${decisionWords(d)}${d.comment ? ` (${d.comment})` : ""}`));
    const undo = this.nextLine("undo");
    left.append(this.classButtons(card), this.actionButtons(card), el("p", "step", undo || "Nothing to undo yet."), this.commentBox(card));
    if (this.message) { const said = el("p", "said", this.message); said.setAttribute("role", "status"); left.append(said); }
    const right = el("div", "right", ...card.beside.map((side) => besideGroup(side, card)));
    if (this.data.guidelines || this.defined().length) right.append(this.guidelines());
    return el("main", "", left, right);
  }
  // Classes with what they mean, in the order of the buttons' keys.
  defined() { return [...this.data.classes, ...this.added].filter((name) => this.meaning(name)).map((name) => [name, this.meaning(name)]); }
  meaning(name) { return Object.hasOwn(this.data.definitions, name) ? this.data.definitions[name] : ""; }
  guidelines() {
    const list = el("dl", "", ...this.defined().flatMap(([name, said]) => [el("dt", "", name), el("dd", "", said)]));
    const made = el("details", "", el("summary", "", "Guidelines"), el("div", "guide", this.data.guidelines, list));
    made.open = Boolean(this.guiding);
    made.addEventListener("toggle", () => { this.guiding = made.open; });
    return made;
  }
  classButtons(card) {
    this.number = null;
    if (this.data.task === "regression") {
      const box = el("input", "number"); box.type = "text"; box.inputMode = "decimal"; box.placeholder = `type the right number, then Enter`; box.setAttribute("aria-label", "The right number");
      const said = el("p", "said", ""); said.setAttribute("role", "status");
      box.addEventListener("keydown", (event) => { event.stopPropagation();
        if (event.key === "Escape") { box.value = ""; said.textContent = ""; return box.blur(); }
        if (event.key !== "Enter" || event.repeat || event.isComposing) return;
        if (asNumber(box.value) === null) { said.textContent = `“${box.value.trim()}” is no number: write it like 3.5 or 1,250.`; return; }
        box.blur(); this.label(box.value.trim()); });
      this.number = box; box.ownerCard = this.at;
      return el("div", "classes", box, el("kbd", "", shown(this.keys.other)), said);
    }
    const all = this.digits(card), few = [...all.slice(0, Math.min(10, card.classes.length)), ...all.slice(card.classes.length)].slice(0, 20);
    const made = few.map(([name, chance, key]) => {
      const css = name === card.given ? "class given" : name === card.suggested ? "class hint" : "class";
      const one = this.button(name, key, css, () => this.label(name),
        [this.meaning(name), name === card.given ? "the given label" : ""].filter(Boolean).join(" – "));
      one.append(el("small", "", chance === null ? "new" : percent(chance)));
      return one;
    });
    return el("div", "classes", ...made, this.button(card.classes.length > 10 ? "Other…" : "New…", this.keys.other, "class", () => this.classDialog()));
  }
  actionButtons(card) {
    const one = (name, text, css = "", title = "") => this.button(text, this.keys[name], css, () => this.act(name), title || NAMES[name]);
    return el("div", "actions", one("keep", "Keep", "main"), card.suggested === null ? null : one("accept", `Accept ${card.suggested}`, "main"), one("drop", "Drop"), one("weigh", "Down-weight"),
      one("unsure", "Unsure"), one("undo", "Undo", "", this.nextLine("undo")), one("redo", "Redo", "", this.nextLine("redo")), one("previous", "Back"), one("next", "Skip"),
      isPicture(card.image) ? one("zoom", "Zoom") : null, isPicture(card.image) ? one("contrast", "Contrast") : null);
  }
  commentBox(card) {
    const box = el("input", "comment"); box.type = "text"; box.maxLength = 2000; box.placeholder = `Comment (${shown(this.keys.comment)}), kept with the decision`;
    box.value = card.mine?.comment || ""; box.ownerCard = this.at; box.setAttribute("aria-label", "Comment");
    box.addEventListener("keydown", (event) => { event.stopPropagation(); if (event.key === "Enter" || event.key === "Escape") box.blur(); });
    this.comment = box;
    return box;
  }
  door() {
    const box = el("input", ""); box.type = "text"; box.maxLength = 100; box.placeholder = "Your name"; box.setAttribute("aria-label", "Your name");
    const go = () => { const name = box.value.trim().replace(/\s+/g, " "); if (!name) return; this.reviewer = name; write("influence.reviewer", name); this.message = ""; this.paint(); this.fetch(); };
    box.addEventListener("keydown", (event) => { event.stopPropagation(); if (event.key === "Enter") go(); });
    return el("div", "empty", el("b", "", "Who is reviewing?"), el("p", "soft", "Your name stands beside every decision, in the log and in the patch."), el("div", "row", box, this.button("Begin", "", "main", go)),
      this.message ? el("p", "said", this.message) : null);
  }
  dialog(title, ...inside) {
    const box = el("dialog", "", el("h2", "", title), ...inside);
    box.addEventListener("close", () => box.remove());
    box.addEventListener("keydown", (event) => event.stopPropagation());
    box.append(el("div", "row", this.button("Close", "", "", () => box.close())));
    this.root.querySelector(".desk").parentNode.append(box);
    box.showModal();
    return box;
  }
  // Why a name cannot be a class; empty if it can, and if it is one.
  refusedName(name) {
    const all = [...this.data.classes, ...this.added];
    if (!name) return "Type a name.";
    if (all.includes(name)) return "";
    if (name.length > LONGEST) return `A name has at most ${LONGEST} letters; this one has ${name.length}.`;
    if (/\p{C}/u.test(name)) return "This name has invisible characters: type it again.";
    const twin = all.find((one) => spelling(one) === spelling(name));
    return twin ? `“${name}” is the class “${twin}” in another spelling: choose that one.` : "";
  }
  classDialog() {
    if (!this.card()) return;
    const list = el("datalist", ""); list.id = "all-classes";
    list.append(...[...this.data.classes, ...this.added].map((name) => { const o = el("option", ""); o.value = name; return o; }));
    const box = el("input", "comment"); box.type = "text"; box.setAttribute("list", "all-classes"); box.setAttribute("aria-label", "Class");
    const said = el("p", "said", ""); said.setAttribute("role", "status");
    const words = "Type a class of this study, or a new one, and press Enter. A new class gets a key at once, and takes part from the next training on.";
    const open = this.dialog("Another class", el("p", "soft", words), box, list, said);
    box.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.repeat || event.isComposing) return;
      event.preventDefault();
      const name = box.value.trim().replace(/\s+/g, " ");
      said.textContent = this.refusedName(name);
      if (said.textContent) return;
      this.add(name); open.close(); this.label(name);
    });
    box.focus();
  }
  helpDialog() {
    const table = el("div", "keys");
    for (const name of Object.keys(KEYS)) {
      const box = el("input", ""); box.readOnly = true; box.value = shown(this.keys[name]); box.setAttribute("aria-label", NAMES[name]);
      box.addEventListener("keydown", (event) => {
        if (["Tab", "Escape", "Shift", "Enter", "Control", "Alt", "AltGraph", "Meta", "CapsLock"].includes(event.key)) return;
        event.preventDefault();
        if (event.ctrlKey || event.metaKey || event.altKey) { said.textContent = "A key by itself, without Ctrl, Alt or ⌘, please."; return; }
        const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
        said.textContent = refusedKey(key);
        if (said.textContent) return;
        const taken = Object.keys(this.keys).find((n) => n !== name && this.keys[n] === key);
        if (taken) { said.textContent = `${shown(key)} is the key of “${NAMES[taken]}”: give that another key first.`; return; }
        this.keys[name] = key; box.value = shown(key); said.textContent = ""; write("influence.review.keys", this.keys); this.paint();
      });
      table.append(el("label", "", el("span", "", NAMES[name]), box));
    }
    const weight = el("input", ""); weight.type = "number"; weight.min = "0"; weight.max = "1"; weight.step = "0.1"; weight.value = read("influence.review.weight", 0.5);
    weight.addEventListener("change", () => {
      const value = Number(weight.value), good = weight.value !== "" && value >= 0 && value <= 1;
      said.textContent = good ? "" : "A weight is a number from 0 to 1.";
      if (good) write("influence.review.weight", value);
    });
    table.append(el("label", "", el("span", "", "Down-weight to"), weight));
    const said = el("p", "said", ""); said.setAttribute("role", "status");
    const set = (keys) => { this.keys = { ...keys }; write("influence.review.keys", keys); box.close(); this.paint(); };
    const box = this.dialog("Keys", el("p", "soft", "Digits pick a class; the key stands on its button. Click a field and press another key to change it."), table, said,
      el("div", "row", this.button("Left hand", "", "", () => set(LEFT)), this.button("Standard", "", "", () => set(KEYS))));
  }
}

export default function (component) {
  const { data, parentElement, setStateValue } = component;
  const here = (window.__influenceReview ||= {});
  if (!here.desk || here.desk.study !== data.study || here.desk.token !== data.token) here.desk = new Desk(data);
  const desk = here.desk;
  desk.root = parentElement; desk.out = (value) => setStateValue("out", value);
  if (!here.listening) { // the function runs again on every rerun
    here.listening = true;
    setInterval(() => here.desk.tick(), 20000);
    document.addEventListener("keydown", (event) => { if (here.desk.root.isConnected ?? here.desk.root.host?.isConnected) here.desk.press(event); });
    const look = () => { const { desk } = here; if (!document.hidden && (desk.root.isConnected ?? desk.root.host?.isConnected)) desk.refresh(); };
    window.addEventListener("focus", look); document.addEventListener("visibilitychange", look);
    window.addEventListener("beforeunload", (event) => { if (here.desk.outbox.unkept && here.desk.outbox.acts.size) event.preventDefault(); });
  }
  desk.take(data);
}
