// The list of classes: which are shown, and how much of the picture each takes.

const MANY = 24;

const list = document.getElementById("legend");
const present = document.getElementById("present");
let rows = [];

// classes: [{name, color}]; hidden: set of the class indices that are not drawn; changed: called after the user changed it.
export function buildLegend(classes, hidden, changed) {
  rows = classes.map(({ name, color }, index) => {
    const row = document.createElement("li");
    const label = document.createElement("label");
    const box = Object.assign(document.createElement("input"), { type: "checkbox", checked: !hidden.has(index) });
    const swatch = Object.assign(document.createElement("canvas"), { width: 1, height: 1 });
    const pen = swatch.getContext("2d");
    pen.fillStyle = `rgb(${color.map(Number).join(" ")})`;
    pen.fillRect(0, 0, 1, 1);
    const text = Object.assign(document.createElement("span"), { className: "name", textContent: name, title: name });
    const area = Object.assign(document.createElement("span"), { className: "area", textContent: "–" });
    const meter = Object.assign(document.createElement("meter"), { min: 0, max: 1, value: 0 });
    meter.setAttribute("aria-hidden", "true");
    box.onchange = () => {
      if (box.checked) hidden.delete(index);
      else hidden.add(index);
      changed();
    };
    label.append(box, swatch, text, area, meter);
    row.append(label);
    return { row, box, area, meter };
  });
  list.replaceChildren(...rows.map(({ row }) => row));
  present.checked = classes.length > MANY;
  present.onchange = () => list.classList.toggle("only_present", present.checked);
  present.onchange();
  const all = (shown) => () => {
    hidden.clear();
    rows.forEach(({ box }, index) => {
      box.checked = shown;
      if (!shown) hidden.add(index);
    });
    changed();
  };
  document.getElementById("all").onclick = all(true);
  document.getElementById("none").onclick = all(false);
}

// Whether the user may choose classes: not where the camera draws them.
export function enableChoice(enabled) {
  rows.forEach(({ box }) => (box.disabled = !enabled));
  for (const id of ["all", "none"]) document.getElementById(id).disabled = !enabled;
}

// areas: share of the pixels, 0..1, by class index.
export function showAreas(areas) {
  areas.forEach((share, index) => {
    const { row, area, meter } = rows[index] ?? {};
    if (!row) return;
    area.textContent = `${(100 * share).toFixed(1)} %`;
    meter.value = share;
    row.classList.toggle("absent", share === 0);
  });
}
