// What a person sees of a run. Every text is set as text, never as markup.
const SIGNS = { queued: "…", running: "▶", completed: "✓", failed: "✕", cancelled: "■", interrupted: "!" };
const LIVE = new Set(["queued", "running"]);
const byId = (id) => document.getElementById(id);

function element(name, { text, ...properties } = {}, children = []) {
  const made = Object.assign(document.createElement(name), properties);
  if (text !== undefined) made.textContent = text;
  made.append(...children);
  return made;
}

function duration(seconds) {
  const whole = Math.round(seconds);
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const two = (number) => String(number).padStart(2, "0");
  if (hours) return `${hours}h ${two(minutes)}m`;
  return minutes ? `${minutes}m ${two(rest)}s` : `${rest}s`;
}

// The last folder or file of a path; names of the Hub stay as they are.
function name(path) {
  const parts = String(path).split(/[\\/]/).filter(Boolean);
  return parts.length > 2 || /^([\\/~.]|[A-Za-z]:)/.test(path) ? parts.at(-1) : path;
}

function show(run, curve) {
  showHeader(run);
  showProgress(run);
  showFacts(run, curve);
  showVerdict(run);
  showLedger(run.ledger ?? []);
  showAnswers(run.untrusted_answers ?? []);
  showFiles(run);
  showTroubles(run);
  showCurves(curve);
}

function showHeader(run) {
  const dataset = [run.dataset ?? []].flat().map(name).join(", ");
  byId("title").textContent = `${name(run.model ?? "model")}${dataset ? ` on ${dataset}` : ""}`;
  byId("run-id").textContent = run.run_id;
  const status = byId("status");
  status.hidden = false;
  status.className = `status ${run.status}`;
  status.replaceChildren(element("span", { text: SIGNS[run.status] ?? "", ariaHidden: "true" }), ` ${run.status}`);
}

function showProgress(run) {
  const share = run.total_steps ? Math.min(1, (run.step ?? 0) / run.total_steps) : 0;
  const bar = byId("bar");
  bar.hidden = !run.total_steps;
  bar.setAttribute("aria-valuenow", Math.round(100 * share));
  byId("done").style.width = `${100 * share}%`;
  const live = LIVE.has(run.status);
  const phase = run.phase ?? (run.step ? "training" : "starting");
  const parts = live && phase !== "training" ? [phase] : [];
  if (run.total_steps) parts.push(`step ${run.step ?? 0} of ${run.total_steps}`);
  if (live && run.eta_s !== undefined) parts.push(`about ${duration(run.eta_s)} left`);
  byId("phase").textContent = parts.join(" · ");
}

function fromTo(before, now) {
  return before === undefined || before === now ? short(now) : `${short(before)} → ${short(now)}`;
}

function showFacts(run, curve) {
  const last = (losses) => losses.filter(Number.isFinite).at(-1);
  const first = (losses) => losses.find(Number.isFinite);
  const loss = last(curve.losses) ?? run.loss;
  const heldOut = run.eval_loss ?? last(curve.evalLosses);
  const before = run.eval_loss_before ?? (curve.evalSteps[0] === 0 ? first(curve.evalLosses) : undefined);
  const facts = [
    ["Training loss", loss !== undefined && fromTo(first(curve.losses) ?? run.first_loss, loss)],
    ["Held-out loss", heldOut !== undefined && fromTo(before, heldOut)],
    ["Speed", LIVE.has(run.status) && run.tokens_per_s && `${Math.round(run.tokens_per_s).toLocaleString()} tokens/s`],
    ...(run.gpus ?? []).map((gpu) => [gpu.name ?? `GPU ${gpu.index}`, gpuState(gpu)]),
  ].filter(([, value]) => value);
  const boxes = facts.map(([title, text]) => element("div", {}, [element("dt", { text: title }), element("dd", { text })]));
  byId("facts").replaceChildren(...boxes);
  byId("facts").hidden = !boxes.length;
}

function gpuState(gpu) {
  const gib = (mib) => (mib / 1024).toFixed(1);
  const memory = gpu.memory_total_mib && `${gib(gpu.memory_used_mib)} of ${gib(gpu.memory_total_mib)} GiB`;
  const heat = gpu.temperature_c !== undefined && `${gpu.temperature_c} °C`;
  return [memory, heat].filter(Boolean).join(" · ");
}

function showVerdict(run) {
  const said = run.verdict ?? run.summary ?? "";
  const kind = ["better", "worse"].find((word) => said.toLowerCase().startsWith(word)) ?? "";
  const box = byId("verdict");
  box.hidden = !said;
  box.className = kind;
  const sign = { better: "▲ ", worse: "▼ " }[kind] ?? "";
  box.replaceChildren(element("span", { text: sign, ariaHidden: "true" }), said);
}

function showLedger(lines) {
  byId("ledger").hidden = !lines.length;
  byId("tasks").replaceChildren(...lines.map((text) => element("li", { text: text.replace(/^Task \d+ /, "") })));
}

function showAnswers(answers) {
  byId("answers").hidden = !answers.length;
  const labels = [["before", "Before"], ["after", "After"], ["expected", "Right answer"], ["in_ollama", "In Ollama"]];
  const cards = answers.map((answer) => {
    const sides = labels.filter(([key]) => answer[key] !== undefined);
    const boxes = sides.map(([key, title]) =>
      element("div", {}, [element("dt", { text: title }), element("dd", { text: answer[key] || "(nothing)" })]),
    );
    return element("article", { className: "answer" }, [
      element("p", { text: answer.question }),
      element("dl", { className: "sides" }, boxes),
    ]);
  });
  byId("answer-list").replaceChildren(...cards);
}

function showFiles(run) {
  const files = [["Adapter", run.adapter_path], ["File", run.path], ["Copy", run.output]];
  byId("files").replaceChildren(
    ...files.filter(([, path]) => path).map(([title, path]) => element("div", { text: `${title}: ${path}` })),
  );
}

function showTroubles(run) {
  const trouble = (text, kind) => element("p", { text, className: `trouble ${kind}` });
  const error = run.error && [run.error.message, run.error.hint].filter(Boolean).join(" ");
  const boxes = [
    ...(error ? [trouble(`Error: ${error}`, "error")] : []),
    ...(run.warnings ?? []).map((warning) => trouble(`Warning: ${warning}`, "")),
  ];
  byId("troubles").replaceChildren(...boxes);
  byId("troubles").hidden = !boxes.length;
}

function showCurves(curve) {
  const any = curve.losses.length + curve.evalLosses.length > 0;
  byId("curves").hidden = !any;
  byId("held-out-key").hidden = !curve.evalLosses.length;
  if (any) drawChart(byId("chart"), curve);
}

function dress(context) {
  const root = document.documentElement;
  if (context.theme) root.style.colorScheme = context.theme;
  for (const [key, value] of Object.entries(context.styles?.variables ?? {}))
    if (key.startsWith("--") && value) root.style.setProperty(key, value);
}
