// Follows one run: looks at it less and less often while nothing changes, and not at all while it is not seen.
const SOONEST_MS = 2_000;
const LATEST_MS = 30_000;
const MAY_STOP = document.body.dataset.mayStop === "true"; // a server that only reads has no tool for it

let run = {};
let curve = { steps: [], losses: [], evalSteps: [], evalLosses: [], begins: [], seq: 0 };
let wasLive = false; // whether this frame has seen the run move
let over = false;
let timer = 0;
let looking = false;
let pause = SOONEST_MS;
let inView = true;

const seen = () => inView && !document.hidden;

// --- what the host and the server tell ---
// A call can wait for its run: what it asks for can be shown before it returns.
bridge.onToolInput = (given) => {
  if (run.run_id) return;
  run = { run_id: given.run_id };
  if (given.run_id) look();
  else byId("title").textContent = "The run is being started";
};
bridge.onToolResult = (result) => {
  const found = /^Run (\S+?):/.exec(textOf(result));
  const told = result.structuredContent?.run_id ? result.structuredContent : found && { run_id: found[1] };
  if (!told) return say(textOf(result) || "The call gave no run.");
  take(told);
  look();
};
bridge.onToolCancelled = () => say("The call was cancelled. A run that it started goes on.");
bridge.onContext = dress;
bridge.onTeardown = () => {
  over = true;
  clearTimeout(timer);
};

function say(text) {
  byId("connection").textContent = text;
}

function take(told) {
  const before = { status: run.status, tenth: tenth() };
  run = { ...run, ...told };
  wasLive ||= LIVE.has(run.status);
  byId("stop").hidden = !MAY_STOP || !LIVE.has(run.status) || !bridge.capabilities.serverTools;
  show(run, curve);
  if (run.status !== before.status || tenth() !== before.tenth) announce();
}

const tenth = () => (run.total_steps ? Math.floor((10 * run.step) / run.total_steps) : 0);

function announce() {
  const steps = run.total_steps ? `, step ${run.step} of ${run.total_steps}` : "";
  byId("announcement").textContent = `${run.status}${steps}`;
}

// New points replace those from their first step on: the run may have gone back to a checkpoint.
function joined(steps, losses, newSteps, newLosses) {
  const from = newSteps.length ? steps.findIndex((step) => step >= newSteps[0]) : -1;
  const end = from < 0 ? steps.length : from;
  return [[...steps.slice(0, end), ...newSteps], [...losses.slice(0, end), ...newLosses]];
}

function addPoints(metrics) {
  const [steps, losses] = joined(curve.steps, curve.losses, metrics.steps, metrics.losses);
  const [evalSteps, evalLosses] = joined(curve.evalSteps, curve.evalLosses, metrics.eval_steps, metrics.eval_losses);
  curve = { steps, losses, evalSteps, evalLosses, begins: metrics.runs_begin ?? [], seq: metrics.seq };
}

// --- looking ---
async function look() {
  clearTimeout(timer);
  if (over || looking || !run.run_id || !seen()) return;
  looking = true;
  try {
    const changed = await lookOnce();
    pause = changed ? SOONEST_MS : Math.min(1.5 * pause, LATEST_MS);
    say("");
  } catch (error) {
    pause = Math.min(2 * pause, LATEST_MS);
    over = error.message.includes("INPUT_RUN_NOT_FOUND");
    say(over ? "This run is not there any more." : `Not connected: ${error.message}`);
  } finally {
    looking = false;
  }
  if (LIVE.has(run.status) && !over) timer = setTimeout(look, pause);
  else if (run.status && !over) end();
}

// Whether anything has changed. Reading resources needs nobody's consent, and tells the whole curve.
async function lookOnce() {
  const before = JSON.stringify([run.status, run.phase, run.step, curve.seq]);
  if (bridge.capabilities.serverResources) {
    const metrics = await readJson(`run://${encodeURIComponent(run.run_id)}/metrics?since=${curve.seq}`);
    addPoints(metrics);
    const { steps, losses, eval_steps, eval_losses, runs_begin, seq, ...told } = metrics;
    const gone = { phase: undefined, eta_s: undefined, tokens_per_s: undefined, gpus: undefined };
    take({ ...gone, ...told });
    if (!LIVE.has(run.status)) take(await readJson(`run://${run.run_id}`));
  } else if (bridge.capabilities.serverTools && LIVE.has(run.status ?? "running")) {
    const told = await callTool("get_run", { run_id: run.run_id });
    if (told.step && told.loss !== undefined && told.step !== curve.steps.at(-1))
      [curve.steps, curve.losses] = joined(curve.steps, curve.losses, [told.step], [told.loss]);
    take(told);
  }
  return JSON.stringify([run.status, run.phase, run.step, curve.seq]) !== before;
}

function end() {
  over = true;
  byId("stop").hidden = true;
  if (!wasLive || !bridge.capabilities.updateModelContext) return;
  const verdict = run.verdict ? ` Verdict: ${run.verdict}` : "";
  const text = `Run ${run.run_id} has ended: ${run.status}.${verdict} get_run(run_id="${run.run_id}") tells the rest.`;
  request("ui/update-model-context", { content: [{ type: "text", text }] }).catch(() => {});
}

document.addEventListener("visibilitychange", () => seen() && look());
new IntersectionObserver(([entry]) => {
  inView = entry.isIntersecting;
  if (seen()) look();
}).observe(document.documentElement);

// --- stopping: a frame has no confirm(), so the second press is the consent ---
function askToStop(asked) {
  byId("ask-stop").hidden = asked;
  byId("confirm-stop").hidden = !asked;
  byId(asked ? "keep-running" : "ask-stop").focus();
}

async function stop() {
  for (const button of byId("confirm-stop").querySelectorAll("button")) button.disabled = true;
  byId("stop-note").textContent = "Stopping…";
  try {
    take(await callTool("cancel_run", { run_id: run.run_id, wait_s: 5 }));
    pause = SOONEST_MS;
    look();
  } catch (error) {
    byId("stop-note").textContent = `It could not be stopped: ${error.message}`;
  }
  for (const button of byId("confirm-stop").querySelectorAll("button")) button.disabled = false;
}

byId("ask-stop").addEventListener("click", () => askToStop(true));
byId("keep-running").addEventListener("click", () => askToStop(false));
byId("stop-now").addEventListener("click", stop);
byId("confirm-stop").addEventListener("keydown", ({ key }) => key === "Escape" && askToStop(false));

// --- the frame ---
readWithCursor(byId("chart"), (text) => (byId("readout").textContent = text));
new ResizeObserver(() => {
  if (!byId("curves").hidden) drawChart(byId("chart"), curve);
  const { scrollWidth } = document.body;
  const height = Math.ceil(document.documentElement.getBoundingClientRect().height);
  notify("ui/notifications/size-changed", { width: scrollWidth, height });
}).observe(document.body);
connect().catch((error) => say(`Not connected: ${error.message}`));
