// Sends up only what was drawn on the map: the region's corners, never the points in it; and which point was clicked.
const CORNERS = 160;

export default function ({ data, setTriggerValue }) {
  const here = (window.__influenceMap ||= {});
  here.send = (name, value) => setTriggerValue(name, value);
  if (here.key !== data.key) { here.key = data.key; here.sent = ""; }
  if (!data.drawn) here.sent = "";
  const listen = () => {
    const plot = document.querySelector(".st-key-map_chart .js-plotly-plot");
    if (!plot || !plot.on || plot.__influence === plot._ev) return;
    plot.on("plotly_selected", (event) => region(plot, event));
    plot.on("plotly_deselect", () => { if (here.sent) { here.sent = ""; here.send("region", { key: here.key, corners: [] }); } });
    plot.on("plotly_click", (event) => {
      const point = event.points.find((p) => p.data.meta === "train" || p.data.meta === "test");
      if (point) here.send("row", { split: point.data.meta, id: String(point.customdata) });
    });
    plot.__influence = plot._ev; // a plot that is made anew has other listeners
  };
  const region = (plot, event) => {
    if (!event) return;
    const drawn = event.lassoPoints
      ? event.lassoPoints.x.map((x, i) => [x, event.lassoPoints.y[i]])
      : event.range ? [[0, 0], [1, 0], [1, 1], [0, 1]].map(([i, j]) => [event.range.x[i], event.range.y[j]]) : [];
    if (drawn.length < 3) return;
    const corners = thinned(drawn, plot._fullLayout);
    const said = JSON.stringify(corners);
    if (said === here.sent) return; // drawn again by the plot itself
    here.sent = said;
    here.send("region", { key: here.key, corners });
  };
  if (!here.watching) {
    here.watching = new MutationObserver(() => {
      if (here.due) return;
      here.due = requestAnimationFrame(() => { here.due = 0; here.listen(); });
    });
    here.watching.observe(document.body, { childList: true, subtree: true });
  }
  here.listen = listen;
  listen();
}

// Leaves out corners that move the outline by less than half a pixel, or by more where there are too many.
function thinned(points, layout) {
  const scale = (axis) => axis._length / Math.abs(axis.range[1] - axis.range[0]);
  const [sx, sy] = [scale(layout.xaxis), scale(layout.yaxis)];
  let kept = points;
  for (let tolerance = 0.5; ; tolerance *= 1.5) {
    kept = simplified(points, tolerance, sx, sy);
    if (kept.length <= CORNERS) break;
  }
  return kept.map((p) => p.map((value) => Number(value.toPrecision(7))));
}

function simplified(points, tolerance, sx, sy) {
  const keep = new Uint8Array(points.length);
  keep[0] = keep[points.length - 1] = 1;
  const open = [[0, points.length - 1]];
  while (open.length) {
    const [a, b] = open.pop();
    let worst = 0, at = -1;
    for (let i = a + 1; i < b; i++) {
      const d = distance(points[i], points[a], points[b], sx, sy);
      if (d > worst) { worst = d; at = i; }
    }
    if (worst > tolerance) { keep[at] = 1; open.push([a, at], [at, b]); }
  }
  const found = points.filter((_, i) => keep[i]);
  return found.length >= 3 ? found : [points[0], points[points.length >> 1], points[points.length - 1]];
}

function distance(p, a, b, sx, sy) {
  const [dx, dy] = [(b[0] - a[0]) * sx, (b[1] - a[1]) * sy];
  const [px, py] = [(p[0] - a[0]) * sx, (p[1] - a[1]) * sy];
  const length = dx * dx + dy * dy;
  const t = length ? Math.max(0, Math.min(1, (px * dx + py * dy) / length)) : 0;
  return Math.hypot(px - t * dx, py - t * dy);
}
