// The map: rows as points on a canvas. Only what is drawn around them goes up, never the points; and which was clicked.
// Plotly takes a second to load and as long to draw the first picture; this is there as soon as the rows are.
const TOOLS = [["lasso", "Lasso"], ["box", "Box"], ["pan", "Pan"]];
const NEAR = 10, STILL = 4, LEAST = 1e-4; // pixels to a point; pixels that are no drag; part of the whole, zoomed in
const KEYS = { ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, 0.1], ArrowDown: [0, -0.1] };

function node(tag, css, text) {
  const made = document.createElement(tag);
  if (css) made.className = css;
  if (text) made.textContent = text;
  return made;
}

function unpacked(text, Kind) {
  return new Kind(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);
}

class InfluenceMap {
  constructor() { this.tool = "lasso"; this.hidden = new Set(); this.key = ""; this.drag = null; this.corners = []; }

  // -- to and from the server ----------------------------------------------------------------------------------------
  take(data, root) {
    if (data.key !== this.key) this.whole(data.box);
    if (data.key !== this.key || data.title !== this.data?.title) this.hidden.clear();
    this.key = data.key; this.data = data; this.corners = data.corners;
    const { points } = data;
    this.x = unpacked(points.x, Float32Array); this.y = unpacked(points.y, Float32Array);
    this.test = unpacked(points.test, Uint8Array); this.code = unpacked(points.code, Uint16Array);
    this.label = unpacked(points.label, Uint32Array); this.ghosts = unpacked(data.ghosts, Float32Array);
    this.ground = data.density && this.shaded(data.density);
    if (this.root !== root || !root.querySelector(".field canvas")) this.build(root);
    this.field.setAttribute("aria-label", data.words);
    this.marks = new Map(); this.list(); this.resize();
  }
  region(corners) {
    if (corners.length || this.corners.length) this.send("region", { key: this.key, corners });
    this.corners = corners; this.paint();
  }

  // -- places --------------------------------------------------------------------------------------------------------
  whole([x0, x1, y0, y1]) { this.window = { x0, x1, y0, y1 }; }
  get sx() { return this.width / (this.window.x1 - this.window.x0); }
  get sy() { return this.height / (this.window.y1 - this.window.y0); }
  across(x) { return (x - this.window.x0) * this.sx; }
  down(y) { return (this.window.y1 - y) * this.sy; }
  back([px, py]) { return [this.window.x0 + px / this.sx, this.window.y1 - py / this.sy]; }
  zoom(times, [px, py] = [this.width / 2, this.height / 2]) {
    const [x, y] = this.back([px, py]), w = this.window, [x0, x1] = this.data.box;
    const by = Math.max(times, (LEAST * (x1 - x0)) / (w.x1 - w.x0));
    this.window = { x0: x + (w.x0 - x) * by, x1: x + (w.x1 - x) * by, y0: y + (w.y0 - y) * by, y1: y + (w.y1 - y) * by };
    this.paint();
  }
  shift(dx, dy) {
    const w = this.window;
    this.window = { x0: w.x0 + dx, x1: w.x1 + dx, y0: w.y0 + dy, y1: w.y1 + dy };
    this.paint();
  }

  // -- the frame -----------------------------------------------------------------------------------------------------
  build(root) {
    this.root = root;
    const place = root.querySelector(".map"), tools = node("div", "tools");
    this.field = node("div", "field"); this.field.tabIndex = 0; this.field.setAttribute("role", "img");
    this.canvas = node("canvas"); this.above = node("canvas"); this.tip = node("div", "tip"); this.tip.hidden = true;
    this.field.append(this.canvas, this.above, this.tip);
    this.legend = node("div", "legend");
    const press = (text, title, run) => {
      const made = node("button", "", text); made.type = "button"; made.title = title;
      made.addEventListener("click", run); tools.append(made);
      return made;
    };
    this.chosen = TOOLS.map(([name, text]) => press(text, { lasso: "Draw around rows", box: "Draw a box around rows", pan: "Move the map" }[name], () => { this.tool = name; this.press(); }));
    press("+", "Zoom in (or turn the wheel)", () => this.zoom(0.7)); press("−", "Zoom out", () => this.zoom(1 / 0.7));
    press("Reset", "Show the whole map", () => { this.whole(this.data.box); this.paint(); });
    place.replaceChildren(tools, this.field, this.legend);
    this.listen(); this.press();
    this.watch?.disconnect(); this.watch = new ResizeObserver(() => this.resize()); this.watch.observe(this.field);
  }
  press() {
    this.chosen.forEach((made, i) => made.setAttribute("aria-pressed", String(TOOLS[i][0] === this.tool)));
    this.field.style.cursor = this.tool === "pan" ? "grab" : "crosshair";
  }
  listen() {
    const field = this.field, at = (event) => { const box = field.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top]; };
    field.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      field.setPointerCapture(event.pointerId);
      this.drag = { from: at(event), path: [at(event)], far: false, tool: event.shiftKey ? "pan" : this.tool };
    });
    field.addEventListener("pointermove", (event) => this.drag ? this.dragged(at(event)) : this.hover(at(event)));
    field.addEventListener("pointerup", () => this.dropped());
    field.addEventListener("pointercancel", () => { this.drag = null; this.overlay(); });
    field.addEventListener("pointerleave", () => this.hover(null));
    field.addEventListener("dblclick", () => { clearTimeout(this.waiting); if (this.corners.length) this.region([]); else { this.whole(this.data.box); this.paint(); } });
    field.addEventListener("wheel", (event) => { event.preventDefault(); this.zoom(Math.exp(event.deltaY * (event.deltaMode ? 0.05 : 0.0015)), at(event)); }, { passive: false });
    field.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const [dx, dy] = KEYS[event.key] || [], w = this.window;
      if (dx !== undefined) this.shift(dx * (w.x1 - w.x0), dy * (w.y1 - w.y0));
      else if (event.key === "+" || event.key === "=") this.zoom(0.7);
      else if (event.key === "-") this.zoom(1 / 0.7);
      else if (event.key === "Escape") { this.drag = null; this.overlay(); this.region([]); }
      else return;
      event.preventDefault();
    });
  }

  // -- the pointer ---------------------------------------------------------------------------------------------------
  dragged(here) {
    const { drag } = this, last = drag.path.at(-1);
    drag.far ||= Math.hypot(here[0] - drag.from[0], here[1] - drag.from[1]) > STILL;
    drag.path.push(here); this.tip.hidden = true;
    if (drag.tool === "pan" && drag.far) this.shift((last[0] - here[0]) / this.sx, (here[1] - last[1]) / this.sy);
    else this.overlay();
  }
  dropped() {
    const { drag } = this;
    this.drag = null;
    if (!drag) return;
    if (!drag.far) this.clicked(drag.from);
    else if (drag.tool !== "pan") {
      const drawn = this.outline(drag).map((place) => this.back(place));
      this.region(thinned(drawn, this.sx, this.sy));
    }
    this.overlay();
  }
  outline({ tool, from, path }) {
    if (tool === "lasso") return path;
    const to = path.at(-1);
    return [from, [to[0], from[1]], to, [from[0], to[1]]];
  }
  clicked(place) { // unless it becomes a double click
    const found = this.nearest(place);
    clearTimeout(this.waiting);
    if (found) this.waiting = setTimeout(() => this.send("row", { split: found.split, id: String(found.id) }), 200);
  }
  // The links' marks lie above the points; of the points the last one drawn lies above.
  nearest([px, py]) {
    let best = NEAR * NEAR, found = null;
    for (const link of this.hidden.has("links") ? [] : this.data.links) {
      const d = (this.across(link.x) - px) ** 2 + (this.down(link.y) - py) ** 2;
      if (d < best) { best = d; found = { split: "train", id: link.id, words: link.words, x: link.x, y: link.y }; }
    }
    if (found) return found;
    const { sx, sy, window: w, data } = this;
    for (let i = 0; i < this.x.length; i++) {
      if (this.hidden.has(this.code[i])) continue;
      const d = ((this.x[i] - w.x0) * sx - px) ** 2 + ((w.y1 - this.y[i]) * sy - py) ** 2;
      if (d <= best) { best = d; found = i; }
    }
    if (found === null) return null;
    const words = data.regression ? `given ${data.points.labels[this.label[found]]}` : `labelled ${data.points.labels[this.label[found]]}`;
    return { split: this.test[found] ? "test" : "train", id: data.points.ids[found], words, x: this.x[found], y: this.y[found] };
  }
  hover(place) {
    const found = place && this.nearest(place);
    this.pointed = found; this.tip.hidden = !found; this.overlay();
    this.tip.textContent = found ? `${found.split} row ${found.id}\n${found.words}` : "";
    if (!found) return;
    const x = this.across(found.x), y = this.down(found.y);
    Object.assign(this.tip.style, { left: x > this.width / 2 ? "" : `${x + 12}px`, right: x > this.width / 2 ? `${this.width - x + 12}px` : "", top: `${Math.min(y + 8, this.height - 50)}px` });
  }

  // -- drawing -------------------------------------------------------------------------------------------------------
  resize() {
    const box = this.field.getBoundingClientRect(), ratio = window.devicePixelRatio || 1;
    this.width = box.width; this.height = box.height;
    for (const canvas of [this.canvas, this.above]) { canvas.width = Math.round(box.width * ratio); canvas.height = Math.round(box.height * ratio); }
    this.ratio = ratio; this.marks = new Map();
    this.draw(); this.overlay();
  }
  paint() { this.due ||= requestAnimationFrame(() => { this.due = 0; this.draw(); this.overlay(); }); }
  shaded({ shape: [rows, columns], alpha }) {
    const canvas = node("canvas"), ink = this.data.ink.ink, values = unpacked(alpha, Uint8Array);
    canvas.width = columns; canvas.height = rows;
    const brush = canvas.getContext("2d"), image = brush.createImageData(columns, rows);
    const [r, g, b] = [1, 3, 5].map((i) => parseInt(ink.slice(i, i + 2), 16));
    for (let row = 0; row < rows; row++) for (let column = 0; column < columns; column++)
      image.data.set([r, g, b, values[(rows - 1 - row) * columns + column]], 4 * (row * columns + column)); // heights go up
    brush.putImageData(image, 0, 0);
    return canvas;
  }
  // A point's picture, drawn once for each colour and shape: copying is ten times as quick as filling twenty thousand.
  mark(colour, test) {
    const name = `${colour} ${test}`;
    if (this.marks.has(name)) return this.marks.get(name);
    const size = this.data.size + (test ? 3 : 0), canvas = node("canvas");
    canvas.width = canvas.height = Math.ceil((size + 2) * this.ratio);
    const brush = canvas.getContext("2d"), c = canvas.width / 2, r = (size / 2) * this.ratio;
    brush.fillStyle = colour; brush.beginPath();
    if (test) { brush.moveTo(c, c - r); brush.lineTo(c + r, c); brush.lineTo(c, c + r); brush.lineTo(c - r, c); brush.closePath(); } else brush.arc(c, c, r, 0, 7);
    brush.fill();
    if (test) { brush.strokeStyle = this.data.ink.ink; brush.lineWidth = this.ratio; brush.stroke(); }
    this.marks.set(name, canvas);
    return canvas;
  }
  draw() {
    const brush = this.canvas.getContext("2d"), { data, ratio } = this, ink = data.ink;
    brush.setTransform(1, 0, 0, 1, 0, 0); brush.clearRect(0, 0, this.canvas.width, this.canvas.height);
    if (this.ground) {
      const [x0, x1, y0, y1] = data.box;
      brush.drawImage(this.ground, this.across(x0) * ratio, this.down(y1) * ratio, (x1 - x0) * this.sx * ratio, (y1 - y0) * this.sy * ratio);
    }
    brush.globalAlpha = 0.5; brush.fillStyle = ink.ghost;
    for (let i = 0; i < this.ghosts.length; i += 2) brush.fillRect((this.across(this.ghosts[i]) - 2) * ratio, (this.down(this.ghosts[i + 1]) - 2) * ratio, 4 * ratio, 4 * ratio);
    this.points(brush);
    brush.setTransform(ratio, 0, 0, ratio, 0, 0); brush.globalAlpha = 1;
    if (!this.hidden.has("links")) this.links(brush);
    if (data.ring >= 0) { brush.strokeStyle = ink.ink; brush.lineWidth = 2.5; brush.beginPath(); brush.arc(this.across(this.x[data.ring]), this.down(this.y[data.ring]), 9, 0, 7); brush.stroke(); }
    this.canvas.dataset.drawn = String(this.x.length);
  }
  points(brush) {
    const { data, ratio, window: w } = this, kx = this.sx * ratio, ky = this.sy * ratio, dim = this.corners.length > 2;
    for (const test of [0, 1]) for (let i = 0; i < this.x.length; i++) {
      if (this.test[i] !== test || this.hidden.has(this.code[i])) continue;
      const px = (this.x[i] - w.x0) * kx, py = (w.y1 - this.y[i]) * ky;
      if (px < -9 || py < -9 || px > this.canvas.width + 9 || py > this.canvas.height + 9) continue;
      const mark = this.mark(data.colours[this.code[i]], test), alpha = test ? 0.95 : 0.8;
      brush.globalAlpha = dim && !holds(this.corners, this.x[i], this.y[i]) ? 0.15 : alpha;
      brush.drawImage(mark, px - mark.width / 2, py - mark.height / 2);
    }
  }
  links(brush) {
    const { data } = this, { query, links, ink } = data;
    if (!query.length) return;
    const mean = [0, 1].map((i) => query.reduce((sum, place) => sum + place[i], 0) / query.length);
    for (const link of links) {
      brush.strokeStyle = link.pro ? ink.pro : ink.opp; brush.lineWidth = 1.4; brush.beginPath();
      brush.moveTo(this.across(mean[0]), this.down(mean[1])); brush.lineTo(this.across(link.x), this.down(link.y)); brush.stroke();
    }
    brush.strokeStyle = ink.paper;
    for (const link of links) {
      const x = this.across(link.x), y = this.down(link.y), up = link.pro ? 1 : -1;
      brush.fillStyle = link.pro ? ink.pro : ink.opp; brush.lineWidth = 1; brush.beginPath();
      brush.moveTo(x, y - 6.5 * up); brush.lineTo(x + 6, y + 4 * up); brush.lineTo(x - 6, y + 4 * up); brush.closePath(); brush.fill(); brush.stroke();
    }
    brush.fillStyle = ink.ink; brush.lineWidth = 1.5;
    for (const [qx, qy] of query) {
      brush.beginPath();
      for (let i = 0; i < 10; i++) { const r = i % 2 ? 4 : 9.5, a = (i * Math.PI) / 5; brush.lineTo(this.across(qx) + r * Math.sin(a), this.down(qy) - r * Math.cos(a)); }
      brush.closePath(); brush.fill(); brush.stroke();
    }
  }
  overlay() {
    const brush = this.above.getContext("2d"), { ink } = this.data;
    brush.setTransform(this.ratio, 0, 0, this.ratio, 0, 0); brush.clearRect(0, 0, this.width, this.height);
    const drawn = this.drag?.far && this.drag.tool !== "pan" ? this.outline(this.drag) : this.corners.map(([x, y]) => [this.across(x), this.down(y)]);
    brush.strokeStyle = ink.ink;
    if (drawn.length > 1) {
      brush.lineWidth = 1.5; brush.setLineDash([4, 3]); brush.beginPath();
      for (const [x, y] of drawn) brush.lineTo(x, y);
      brush.closePath(); brush.stroke(); brush.fillStyle = "rgba(128, 128, 128, .08)"; brush.fill(); brush.setLineDash([]);
    }
    if (this.pointed && !this.drag) { brush.lineWidth = 1.5; brush.beginPath(); brush.arc(this.across(this.pointed.x), this.down(this.pointed.y), 6, 0, 7); brush.stroke(); }
  }
  list() {
    const { data } = this, rows = [];
    const line = (key, text, sign) => {
      const made = node("button"); made.type = "button"; made.title = "Hide or show; with Shift only these";
      made.append(...sign, node("span", "", text)); made.setAttribute("aria-pressed", String(!this.hidden.has(key)));
      made.addEventListener("click", (event) => this.toggle(key, event.shiftKey));
      rows.push(made);
    };
    for (const [code, name] of data.legend) { const dot = node("i"); dot.style.background = data.colours[code]; line(code, name, [dot]); }
    if (data.scale) {
      const box = node("div", "scale"), bar = node("i"); bar.style.background = `linear-gradient(to top, ${data.scale.ramp.join(",")})`;
      box.append(node("p", "", data.title), bar, node("span", "", data.scale.high), node("span", "", data.scale.low)); rows.push(box);
    }
    const sign = (text, colour) => { const made = node("b", "", text); made.style.color = colour; return [made]; };
    if (data.links.some((link) => link.pro)) line("links", "proponents", sign("▲", data.ink.pro));
    if (data.links.some((link) => !link.pro)) line("links", "opponents", sign("▼", data.ink.opp));
    if (data.query.length) line("links", "explained", sign("★", data.ink.ink));
    this.legend.replaceChildren(...rows);
  }
  toggle(key, alone) {
    const codes = this.data.legend.map(([code]) => code);
    if (alone && codes.includes(key)) this.hidden = codes.some((code) => code !== key && !this.hidden.has(code)) ? new Set(codes.filter((code) => code !== key)) : new Set();
    else if (!this.hidden.delete(key)) this.hidden.add(key);
    this.list(); this.paint();
  }
}

export default function ({ data, parentElement, setTriggerValue }) {
  const map = (window.__influenceMap ||= new InfluenceMap());
  map.send = (name, value) => setTriggerValue(name, value);
  map.take(data, parentElement);
}
