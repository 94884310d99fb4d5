// Lines over the last minute.

const SPAN = 60;
const LEFT = 34;
const BOTTOM = 16;
const TOP = 6;

// canvas: where; points: [{time, ...values}] in seconds; lines: [{key, color}] with colors as names of CSS variables.
export function drawChart(canvas, points, lines) {
  const ratio = devicePixelRatio || 1;
  const width = canvas.clientWidth;
  const height = canvas.clientHeight;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  const pen = canvas.getContext("2d");
  pen.scale(ratio, ratio);
  const style = getComputedStyle(document.documentElement);
  const color = (name) => style.getPropertyValue(name).trim();
  const now = points.length ? points[points.length - 1].time : 0;
  const top = ceiling(Math.max(0, ...points.flatMap((p) => lines.map(({ key }) => p[key] ?? 0))));
  const x = (time) => LEFT + (width - LEFT - 1) * (1 - (now - time) / SPAN);
  const y = (value) => height - BOTTOM - (height - BOTTOM - TOP) * (value / top);

  pen.font = "11px system-ui, sans-serif";
  pen.fillStyle = color("--quiet");
  pen.strokeStyle = color("--grid");
  pen.lineWidth = 1;
  pen.textAlign = "right";
  pen.textBaseline = "middle";
  for (const value of [0, top / 2, top]) {
    pen.fillText(String(value), LEFT - 6, y(value));
    line(pen, [[LEFT, Math.round(y(value)) + 0.5], [width, Math.round(y(value)) + 0.5]]);
  }
  pen.textBaseline = "alphabetic";
  pen.fillText("now", width, height - 2);
  pen.textAlign = "left";
  pen.fillText("1 min ago", LEFT, height - 2);

  pen.save();
  pen.beginPath();
  pen.rect(LEFT, 0, width - LEFT, height);
  pen.clip();
  pen.lineWidth = 2;
  pen.lineJoin = "round";
  for (const { key, color: name } of lines) {
    pen.strokeStyle = color(name);
    let run = [];
    for (const point of [...points, {}]) {
      if (Number.isFinite(point[key])) run.push([x(point.time), y(point[key])]);
      else if (run.length) {
        line(pen, run);
        run = [];
      }
    }
  }
  pen.restore();
}

// Points of the last minute and one before, so that the line reaches the edge.
export function recent(points) {
  const last = points[points.length - 1].time;
  const first = points.findIndex((p) => p.time >= last - SPAN);
  return points.slice(Math.max(0, first - 1));
}

function line(pen, points) {
  pen.beginPath();
  points.forEach(([x, y], i) => (i ? pen.lineTo(x, y) : pen.moveTo(x, y)));
  pen.stroke();
}

// The next of 2, 4, 10, 20, 40, 100 ... above a value, whose half is a short number too.
function ceiling(value) {
  for (let unit = 1; ; unit *= 10) {
    for (const step of [2, 4, 10]) if (1.05 * value <= step * unit) return step * unit;
  }
}
