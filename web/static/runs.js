// The runs that move, as the server tells them. A run that is not in the table is named, and not put in: the
// table must not jump while somebody reads it.
"use strict";

const table = document.getElementById("runs");
const rows = new Map([...document.querySelectorAll("tr[data-run]")].map((row) => [row.dataset.run, row]));
const told = new Set();

function setPart(row, part, text) {
  const cell = row.querySelector(`[data-part=${part}]`);
  if (cell && cell.textContent !== text) cell.textContent = text;
}

function showStatus(row, status) {
  const pill = row.querySelector(".status");
  if (!pill || pill.classList.contains(status)) return;
  pill.className = `status ${status}`;
  pill.replaceChildren(element("span", { text: SIGNS[status] ?? "", ariaHidden: "true" }), ` ${status}`);
}

function update(runs) {
  for (const run of runs) {
    const row = rows.get(run.run_id);
    if (!row) {
      told.add(run.run_id);
      continue;
    }
    showStatus(row, run.status);
    setPart(row, "steps", run.total_steps ? `${run.step} of ${run.total_steps}` : "");
    setPart(row, "loss", run.loss === null ? "" : String(Number(run.loss.toPrecision(4))));
    setPart(row, "eta", LIVE.has(run.status) && run.eta_s !== null ? `about ${duration(run.eta_s)} left` : "");
  }
  showNews();
}

function showNews() {
  if (!told.size) return;
  const link = element("a", { text: "Show", href: location.href });
  const text = told.size === 1 ? "A new run has started. " : `${told.size} new runs have started. `;
  document.getElementById("news").replaceChildren(text, link);
}

const source = new EventSource("/runs/stream");
source.addEventListener("runs", ({ data }) => update(JSON.parse(data)));
