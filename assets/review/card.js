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

function besideRow(row, given, kind) {
  const differs = kind !== "hurts" && row.given !== given;
  const said = kind === "hurts" && row.predicted !== row.given ? `${row.given}, said ${row.predicted}` : row.given;
  const name = el("b", differs ? "label differs" : "label", said);
  const score = el("small", "", `${row.score > 0 && kind !== "near" ? "+" : ""}${Number(row.score).toPrecision(2)}`);
  const card = el("li", row.image ? "tile" : "line");
  card.title = `${row.split} row ${row.row_id}, labelled ${row.given}, predicted ${row.predicted}`;
  if (isPicture(row.image)) card.append(picture(row.image, card.title, "thumb"), name, score);
  else card.append(name, el("span", "words", row.text), score);
  return card;
}

function besideGroup(side, given) {
  const head = el("h3", side.kind, side.title, el("small", "", side.rows.length ? side.note : ""));
  const rows = side.rows.slice(0, isPicture(side.rows[0]?.image) ? 6 : 3);
  const body = rows.length ? el("ul", "", ...rows.map((row) => besideRow(row, given, side.kind))) : el("p", "soft", side.note || "None.");
  return el("section", "", head, body);
}

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
  if (card.text !== null) return el("div", "text", card.text);
  const rows = card.cells.map(([name, value]) => el("tr", "", el("th", "", name), el("td", "", value)));
  return el("div", "cells", el("table", "", el("tbody", "", ...rows)));
}

function verdictLine(card) {
  const sure = card.chance === null ? "" : ` ${percent(card.chance)}`;
  const line = el("div", "verdict",
    el("span", "pair", el("small", "", "given"), el("b", "", card.given)),
    card.suggested === null ? null : el("span", "pair hint", el("small", "", "suggested"), el("b", "", card.suggested), el("i", "", sure)));
  if (card.chance !== null) line.title = `Chance from ${card.chance_from}`;
  return line;
}
