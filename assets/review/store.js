// Decisions on their way to the server: each is in the browser's local storage before anything else happens with it,
// and leaves it when the server says that it is on the disk. One entry per act, so that tabs never overwrite each other.
const PREFIX = "influence.act.";

class Outbox {
  constructor(study) {
    this.study = study;
    this.tab = [...crypto.getRandomValues(new Uint8Array(8))].map((b) => b.toString(16).padStart(2, "0")).join("");
    this.number = 0;
    this.acts = new Map(); // key -> act, in the order of sending
    this.unkept = false; // local storage refused
    this.adopt();
  }
  key(act) { return `${PREFIX}${this.study}|${act.tab}|${act.number}`; }
  // What an earlier page, or another tab, could not deliver.
  adopt() {
    const found = [];
    for (let i = 0; i < localStorage.length; i++) {
      const key = localStorage.key(i);
      if (!key.startsWith(`${PREFIX}${this.study}|`) || this.acts.has(key)) continue;
      try { const act = JSON.parse(localStorage.getItem(key)); if (act.tab !== this.tab) found.push([key, act]); }
      catch { localStorage.removeItem(key); }
    }
    found.sort((a, b) => a[1].made - b[1].made || a[1].number - b[1].number);
    if (found.length) this.acts = new Map([...found, ...this.acts]);
  }
  add(reviewer, kind, decisions, evidence, more = {}) {
    const act = { reviewer, tab: this.tab, number: ++this.number, kind, decisions, evidence, ...more, made: Date.now() };
    try { localStorage.setItem(this.key(act), JSON.stringify(act)); } catch { this.unkept = true; }
    this.acts.set(this.key(act), act);
    return act;
  }
  settle(tab, number) {
    const key = this.key({ tab, number }), act = this.acts.get(key);
    this.acts.delete(key);
    try { localStorage.removeItem(key); } catch { this.unkept = true; }
    return act;
  }
  // Whether something on its way may change what holds about a row.
  concerns(reviewer, split, row) {
    return this.waiting(reviewer).some((act) => act.kind !== "decide" || act.decisions.some((d) => d.split === split && d.row === row));
  }
  waiting(reviewer) { return [...this.acts.values()].filter((act) => act.reviewer === reviewer); }
}
