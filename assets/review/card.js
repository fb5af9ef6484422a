// How a card looks. Everything that comes from the data is set as text, never as HTML.
const el = (tag, css, ...inside) => {
  const made = document.createElement(tag);
  if (css) made.className = css;
  made.append(...inside.filter((part) => part !== null && part !== undefined));
  return made;
};
const isPicture = (uri) => typeof uri === "string" && /^data:image\/(png|jpeg);base64,/.test(uri);
const percent = (p) => (p > 0 && p < 0.01 ? "<1%" : p > 0.99 && p < 1 ? ">99%" : `${Math.round(100 * p)}%`);
const picture = (uri, alt, css) => {
  const img = el("img", css);
  img.src = uri; img.alt = alt; img.decoding = "sync";
  return img;
};

const signed = (score, kind) => `${score > 0 && kind !== "near" ? "+" : ""}${Number(score).toPrecision(2)}`.replaceAll("-", "−");

// Of a table row beside the card: the columns in which it lies furthest from the row under review.
function differences(row) {
  const line = el("span", "words", ...row.differs.flatMap(([name, value, here], i) => {
    const one = el("span", "cell", el("small", "", name), " ", value);
    one.title = `${name}: ${value} there, ${here} here`;
    return i ? [" · ", one] : [one];
  }));
  if (!row.differs.length) line.append(row.columns ? "the same in every column that the model reads" : row.text);
  return line;
}

function besideRow(row, own, kind) {
  const isNumber = own.error !== null; // any two numbers differ, which says nothing
  const differs = kind !== "hurts" && !isNumber && row.given !== own.given;
  const said = kind === "hurts" && row.predicted !== row.given ? `${row.given}, said ${row.predicted}` : row.given;
  const name = el("b", differs ? "label differs" : "label", said);
  const score = el("small", "score", signed(row.score, kind));
  const card = el("li", row.image ? "tile" : "line");
  card.title = `${row.split} row ${row.row_id}, labelled ${row.given}, predicted ${row.predicted}`;
  if (isPicture(row.image)) card.append(picture(row.image, card.title, "thumb"), name, score);
  else if (row.columns) card.append(name, differences(row), el("small", "score", `${row.alike} of ${row.columns} equal`), score);
  else card.append(name, el("span", "words", row.text), score);
  return card;
}

function besideGroup(side, card) {
  const head = el("h3", side.kind, side.title, el("small", "", side.rows.length ? side.note : ""));
  const rows = side.rows.slice(0, isPicture(side.rows[0]?.image) ? 6 : 3);
  const body = rows.length ? el("ul", "", ...rows.map((row) => besideRow(row, card, side.kind))) : el("p", "soft", side.note || "None.");
  return el("section", "", head, body);
}

// What a decision did to its row, as decision_words in the service says it of what is saved.
function stepWords(d) {
  const row = d.split === "train" ? `row ${d.row}` : `${d.split} row ${d.row}`;
  if (d.action === "relabel") return `'${d.given}' → '${d.label}' on ${row}`;
  if (d.action === "keep") return `kept '${d.given}' on ${row}`;
  if (d.action === "drop") return `dropped ${row}`;
  return d.action === "downweight" ? `down-weighted ${row} to ${d.weight}` : `marked ${row} unsure`;
}
const ago = (seconds) => {
  if (seconds < 60) return "just now";
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ago`;
  const days = Math.floor(seconds / 86400);
  return `${days} day${days > 1 ? "s" : ""} ago`;
};

function decisionWords(d) {
  const words = { keep: "keep", relabel: `→ ${d.label}`, drop: "drop", downweight: `weight ${d.weight}`, unsure: "unsure" };
  return words[d.action] || d.action;
}

function subject(card, look) {
  if (isPicture(card.image)) {
    const img = picture(card.image, card.alt, "picture");
    img.style.filter = `contrast(${look.contrast})${look.invert ? " invert(1)" : ""}`;
    img.style.transform = `scale(${look.zoom})`;
    return el("div", "frame", img);
  }
  if (card.text !== null) return el("div", "text", card.text || "(empty)");
  const near = card.beside.find((side) => side.kind === "near"), compared = card.cells.some((cell) => cell.near);
  const line = (cell) => {
    const value = el("td", cell.value === "–" ? "gone" : "", cell.differs ? el("i", "mark", "≠") : null, cell.value);
    const made = el("tr", cell.differs ? "differs" : "", el("th", "", cell.name), value, compared ? el("td", "soft", cell.near) : null);
    if (cell.differs) made.title = "None of the nearest rows has this value, or one as far out";
    return made;
  };
  const read = card.cells.filter((cell) => cell.read), other = card.cells.filter((cell) => !cell.read);
  const aside = el("tr", "aside", el("th", "", "not read by the model")); aside.firstChild.colSpan = 3;
  const head = el("tr", "", el("th", "", "column"), el("th", "", "this row"), compared ? el("th", "", `nearest ${near.rows.length}`) : null);
  return el("div", "cells", el("table", "", el("thead", "", head), el("tbody", "", ...read.map(line), other.length ? aside : null, ...other.map(line))));
}

function errorPair(card) {
  const made = el("span", "pair", el("small", "", "error"), el("b", "", card.error.startsWith("−") ? card.error : `+${card.error}`));
  made.title = "What the model says, minus what is given";
  return made;
}

function verdictLine(card) {
  const sure = card.chance === null ? "" : ` ${percent(card.chance)}`;
  const line = el("div", "verdict",
    el("span", "pair", el("small", "", "given"), el("b", "", card.given)),
    card.suggested === null ? null : el("span", "pair hint", el("small", "", card.error === null ? "suggested" : "the model says"), el("b", "", card.suggested), el("i", "", sure)),
    card.error === null ? null : errorPair(card));
  if (card.chance !== null) line.title = `Chance from ${card.chance_from}`;
  return line;
}
