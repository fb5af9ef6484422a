// What is drawn around rows: which points it holds, and its corners, as few as say the same.
const CORNERS = 160;

function holds(corners, x, y) {
  let inside = false;
  for (let i = 0, j = corners.length - 1; i < corners.length; j = i++) {
    const [xi, yi] = corners[i], [xj, yj] = corners[j];
    if (yi > y !== yj > y && x < ((xj - xi) * (y - yi)) / (yj - yi) + xi) inside = !inside;
  }
  return inside;
}

// Leaves out corners that move the outline by less than half a pixel, or by more where there are too many.
function thinned(points, sx, sy) { // pixels for one unit of x and y
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
