// Follows one run by server-sent events, and draws it with the dashboard's views. What it keeps is bounded: a
// page may stay open for days.
"use strict";

const MOST_POINTS = 2400; // then the server's thinned curve is asked for again
const MOST_LINES = 200;

const known = JSON.parse(byId("known").textContent);
let run = known.run;
let curve = known.curve;
let loggedSeq = curve.seq;
let source = null;
let waiting = false; // for the next frame; a page that is not seen draws nothing

// New points replace those from their first step on: the run may have gone back to a checkpoint.
function joined(steps, losses, newSteps, newLosses) {
  const from = newSteps.length ? steps.findIndex((step) => step >= newSteps[0]) : -1;
  const end = from < 0 ? steps.length : from;
  return [[...steps.slice(0, end), ...newSteps], [...losses.slice(0, end), ...newLosses]];
}

function addPoints(told) {
  const [steps, losses] = joined(curve.steps, curve.losses, told.steps, told.losses);
  const [evalSteps, evalLosses] = joined(curve.evalSteps, curve.evalLosses, told.eval_steps, told.eval_losses);
  curve = { steps, losses, evalSteps, evalLosses, begins: told.runs_begin ?? [], seq: told.seq };
}

function addLines(lines) {
  const list = byId("events");
  const isAtEnd = list.scrollTop + list.clientHeight >= list.scrollHeight - 8;
  for (const [seq, text] of lines) {
    if (seq <= loggedSeq) continue;
    loggedSeq = seq;
    list.append(element("li", { text }));
  }
  while (list.children.length > MOST_LINES) list.firstElementChild.remove();
  if (isAtEnd) list.scrollTop = list.scrollHeight;
}

const tenth = () => (run.total_steps ? Math.floor((10 * run.step) / run.total_steps) : 0);

function take(told) {
  const before = { status: run.status, tenth: tenth() };
  run = { ...run, ...told };
  drawSoon();
  if (run.status === before.status && tenth() === before.tenth) return;
  const steps = run.total_steps ? `, step ${run.step} of ${run.total_steps}` : "";
  byId("announcement").textContent = `${run.status}${steps}`;
}

function drawSoon() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    draw();
  });
}

function draw() {
  showHeader(run);
  showProgress(run);
  showFacts(run, curve);
  showVerdict(run);
  showAnswers(run.untrusted_answers ?? []);
  showFiles(run);
  showTroubles(run);
  if (byId("curves")) showCurves(curve);
  if (byId("no-losses")) byId("no-losses").hidden = curve.steps.length > 0;
  document.title = document.title.replace(/^\w+/, run.status);
}

function onMetrics({ data }) {
  const { steps, losses, eval_steps, eval_losses, runs_begin, seq, log, ...told } = JSON.parse(data);
  addPoints({ steps, losses, eval_steps, eval_losses, runs_begin, seq });
  addLines(log);
  const gone = { phase: undefined, eta_s: undefined, tokens_per_s: undefined, gpus: undefined };
  take({ ...gone, ...told });
  byId("connection").textContent = "";
  if (curve.steps.length > MOST_POINTS) readAgain();
}

function readAgain() {
  curve = { steps: [], losses: [], evalSteps: [], evalLosses: [], begins: [], seq: 0 };
  follow();
}

function onEnd({ data }) {
  source.close();
  take(JSON.parse(data));
  byId("steps").value = 2 * (run.total_steps ?? 100);
  if (!document.querySelector("#ledger-title")) showLedger(run.ledger ?? []);
  for (const part of document.querySelectorAll("[data-can]")) part.hidden = !run.can.includes(part.dataset.can);
}

function follow() {
  source?.close();
  source = new EventSource(`/runs/${encodeURIComponent(run.run_id)}/stream?since=${curve.seq}`);
  source.addEventListener("metrics", onMetrics);
  source.addEventListener("end", onEnd);
  source.addEventListener("gone", ({ data }) => {
    source.close();
    byId("connection").textContent = JSON.parse(data).message;
  });
  source.addEventListener("error", () => {
    byId("connection").textContent = "Not connected; trying again. The run goes on.";
    // After an answer that is no stream, a browser gives up: the server may have been started anew.
    if (source.readyState === EventSource.CLOSED) setTimeout(follow, 5000);
  });
}

if (byId("chart")) {
  readWithCursor(byId("chart"), (text) => (byId("readout").textContent = text));
  new ResizeObserver(() => showCurves(curve)).observe(byId("chart").parentElement);
}
byId("events").scrollTop = byId("events").scrollHeight;
draw();
if (known.live) follow();
