// Keys and what is typed: which key stands for what, which keys and names are refused and why, and numbers.
const KEYS = { keep: "k", accept: "a", drop: "d", weigh: "w", unsure: "u", undo: "z", redo: "y", previous: "ArrowLeft",
  next: "ArrowRight", other: "n", comment: "m", help: "?", zoom: "f", contrast: "x" };
const LEFT = { ...KEYS, keep: "q", accept: "e", unsure: "s", other: "t", comment: "g" };
const NAMES = { keep: "Keep", accept: "Accept suggestion (also Enter)", drop: "Drop", weigh: "Down-weight", unsure: "Unsure", undo: "Undo",
  redo: "Redo", previous: "Previous", next: "Next", other: "Another or new class", comment: "Comment", help: "Help",
  zoom: "Zoom the picture", contrast: "Contrast" };
const SHOW = { ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓", " ": "Space" };
const LONGEST = 200; // letters of a class
// Of two spellings of one name, the same.
const spelling = (name) => name.normalize("NFKC").toLowerCase().trim().replace(/\s+/g, " ");
// Why a key cannot stand for an action; empty if it can.
function refusedKey(key) {
  if (/^[0-9]$/.test(key)) return "Digits pick classes: choose another key.";
  if (key === "c" || key === "r") return "C and R belong to the page: choose another key.";
  if (key.length === 1 || /^(Arrow(Left|Right|Up|Down)|Home|End|PageUp|PageDown|Backspace|Delete|Insert)$/.test(key)) return "";
  return `${key} cannot be used here: choose another key.`;
}
// The keys that this browser keeps, if they are whole: one key per action.
function keptKeys() {
  const kept = read("influence.review.keys", {}), keys = { ...KEYS };
  for (const name of Object.keys(KEYS)) if (typeof kept[name] === "string" && !refusedKey(kept[name])) keys[name] = kept[name];
  return new Set(Object.values(keys)).size === Object.keys(KEYS).length ? keys : { ...KEYS };
}
const shown = (key) => SHOW[key] || (key.length === 1 ? key.toUpperCase() : key);
// A number as people write it, with commas between thousands only, or null.
const asNumber = (text) => {
  const plain = String(text).trim().replace("−", "-");
  if (!plain || (plain.includes(",") && !/^[+-]?\d{1,3}(,\d{3})+(\.\d*)?$/.test(plain))) return null;
  const value = Number(plain.replaceAll(",", ""));
  return Number.isFinite(value) && !/^[+-]?0[xob]/i.test(plain) ? value : null;
};
const read = (name, otherwise) => { try { return JSON.parse(localStorage.getItem(name)) ?? otherwise; } catch { return otherwise; } };
const write = (name, value) => { try { localStorage.setItem(name, JSON.stringify(value)); } catch { /* only comfort is lost */ } };
