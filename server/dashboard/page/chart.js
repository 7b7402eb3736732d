// Losses by step: a line for the training, squares for the held-out rows, a cursor that reads single steps.
const SVG = "http://www.w3.org/2000/svg";
const HEIGHT = 220;
const NARROW = 420;
const MARGIN = { left: 46, right: 12, top: 8, bottom: 24 };
const ENOUGH_FOR_A_LINE = 3; // a line through fewer held-out losses would claim more than was measured

let drawn = null; // the scales of what is shown, for the cursor
let cursor = null; // index of the step that is read

function shape(name, attributes, text) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

// Round numbers in equal distances, which enclose both ends.
function ticks(low, high, most) {
  const span = high - low || Math.max(Math.abs(high), 1);
  const size = 10 ** Math.floor(Math.log10(span / most));
  const step = [1, 2, 5, 10, 20].map((factor) => factor * size).find((width) => span / width <= most);
  const first = Math.floor(low / step);
  const last = Math.max(Math.ceil(high / step), first + 1);
  return Array.from({ length: last - first + 1 }, (_, index) => (first + index) * step);
}

function label(value) {
  if (Math.abs(value) >= 1e6) return `${short(value / 1e6)}M`;
  return Math.abs(value) >= 1e4 ? `${short(value / 1e3)}k` : short(value);
}

// At most four significant digits.
function short(value) {
  return String(Number(value.toPrecision(4)));
}

function points(steps, losses) {
  return steps.map((step, index) => ({ step, loss: losses[index] })).filter(({ loss }) => Number.isFinite(loss));
}

function drawChart(svg, curve) {
  const training = points(curve.steps, curve.losses);
  const heldOut = points(curve.evalSteps, curve.evalLosses);
  const all = [...training, ...heldOut];
  const width = svg.clientWidth;
  if (!all.length || !width) return false;

  const xs = ticks(0, Math.max(...all.map(({ step }) => step)), width < NARROW ? 4 : 8);
  const ys = ticks(Math.min(...all.map(({ loss }) => loss)), Math.max(...all.map(({ loss }) => loss)), 5);
  const across = scale(xs, MARGIN.left, width - MARGIN.right);
  const down = scale(ys, HEIGHT - MARGIN.bottom, MARGIN.top);
  const place = ({ step, loss }) => `${across(step).toFixed(1)} ${down(loss).toFixed(1)}`;
  const line = (name, part) => shape("path", { class: name, d: `M${part.map(place).join("L")}` });

  const parts = [...axes(xs, ys, across, down, width)];
  for (const [index, begin] of (curve.begins ?? []).entries()) parts.push(...border(index, across(begin)));
  if (training.length > 1) parts.push(line("training", training));
  else parts.push(...training.map((point) => dot(across(point.step), down(point.loss))));
  if (heldOut.length >= ENOUGH_FOR_A_LINE) parts.push(line("held-out", heldOut));
  for (const point of heldOut) parts.push(square(across(point.step), down(point.loss)));
  svg.replaceChildren(...parts);
  svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
  drawn = { svg, across, training, heldOut };
  if (cursor !== null) moveCursor(Math.min(cursor, steps().length - 1));
  return true;
}

function scale(values, from, to) {
  const [low, high] = [values[0], values.at(-1)];
  return (value) => from + ((value - low) / (high - low)) * (to - from);
}

function* axes(xs, ys, across, down, width) {
  for (const value of ys) {
    const y = down(value);
    yield shape("line", { class: "grid", x1: MARGIN.left, x2: width - MARGIN.right, y1: y, y2: y });
    yield shape("text", { x: MARGIN.left - 8, y: y + 4, "text-anchor": "end" }, label(value));
  }
  const last = xs.length - 1;
  for (const [index, value] of xs.entries()) {
    if (index === last - 1 && width < NARROW) continue; // the last name is longer
    const [anchor, name] = index === last ? ["end", `step ${label(value)}`] : ["middle", label(value)];
    yield shape("text", { x: across(value), y: HEIGHT - 6, "text-anchor": anchor }, name);
  }
}

// Where a run of a multi-run begins.
function* border(index, x) {
  if (index) yield shape("line", { class: "border", x1: x, x2: x, y1: MARGIN.top, y2: HEIGHT - MARGIN.bottom });
  yield shape("text", { x: x + 4, y: MARGIN.top + 10 }, `run ${index + 1}`);
}

function dot(x, y) {
  return shape("circle", { class: "training-point", cx: x, cy: y, r: 4 });
}

function square(x, y) {
  return shape("rect", { class: "held-out-point", x: x - 4, y: y - 4, width: 8, height: 8 });
}

// --- the cursor ---
function steps() {
  const known = new Set([...drawn.training, ...drawn.heldOut].map(({ step }) => step));
  return [...known].sort((one, other) => one - other);
}

function moveCursor(index) {
  cursor = index;
  drawn.svg.querySelector(".cursor")?.remove();
  const step = steps()[index];
  const x = drawn.across(step);
  const line = { class: "cursor", x1: x, x2: x, y1: MARGIN.top, y2: HEIGHT - MARGIN.bottom };
  drawn.svg.append(shape("line", line));
  const at = (part) => part.find((point) => point.step === step)?.loss;
  const read = [["training", at(drawn.training)], ["held-out", at(drawn.heldOut)]];
  const said = read.filter(([, loss]) => loss !== undefined).map(([name, loss]) => `${name} ${short(loss)}`);
  return `step ${step}: ${said.join(", ")}`;
}

function hideCursor() {
  cursor = null;
  drawn?.svg.querySelector(".cursor")?.remove();
}

function nearest(x) {
  const distances = steps().map((step) => Math.abs(drawn.across(step) - x));
  return distances.indexOf(Math.min(...distances));
}

function readWithCursor(svg, say) {
  svg.addEventListener("pointermove", ({ clientX }) => {
    if (drawn) say(moveCursor(nearest(clientX - svg.getBoundingClientRect().left)));
  });
  for (const leaving of ["pointerleave", "blur"])
    svg.addEventListener(leaving, () => {
      hideCursor();
      say("");
    });
  svg.addEventListener("keydown", (event) => {
    const last = drawn ? steps().length - 1 : -1;
    const now = cursor ?? last;
    const target = { ArrowLeft: now - 1, ArrowRight: now + 1, Home: 0, End: last }[event.key];
    if (target === undefined || last < 0) return;
    event.preventDefault();
    say(moveCursor(Math.max(0, Math.min(last, cursor === null && event.key.startsWith("Arrow") ? last : target))));
  });
}
