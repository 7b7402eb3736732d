"""`backprop diff-runs`: two trainings beside each other."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import anyio
import click

from ..tools.loss_plot import sparkline
from ..tools.status import duration, rounded
from ..training.config.results import TrainingResult
from ..training.config.specs import TRAININGS
from ..training.errors import InputError
from ..training.next_step import then
from ..training.redact import scrub_all
from ..training.runs.identity import seconds_since
from ..training.runs.view import RunView
from ..training.service import TrainingService
from ..training.untrusted import one_line
from .completion import complete_run
from .runs import as_json_option
from .wrapped import say, say_json

Rows = dict[str, tuple[Any, Any]]
CELL = 60  # characters


@click.command("diff-runs")
@click.argument("first", shell_complete=complete_run)
@click.argument("second", shell_complete=complete_run)
@as_json_option
def diff_runs(first: str, second: str, as_json: bool) -> None:
    """Compare two trainings: the settings and data that differ, losses, verdict and speed."""
    service = TrainingService()
    views = [anyio.run(service.get, run_id) for run_id in (first, second)]
    for view in views:
        if view.kind not in TRAININGS:
            raise InputError(
                f"Run {view.run_id} is no training ({view.kind}).", next=then("get_run", run_id=view.run_id)
            )
    data = _beside([_dataset(service, view) for view in views])
    settings = _differing(_beside([{"model": view.model, **view.settings} for view in views]))
    results = _beside([_result(view) for view in views])
    if as_json:
        parts = {"data": data, "settings": settings, "results": results}
        record = scrub_all({"runs": [view.run_id for view in views], **parts})
        say_json(json.dumps(record, indent=1, ensure_ascii=False))
        return
    table = [("", views[0].run_id, views[1].run_id)]
    table += [("DATA", "", ""), *_cells(data)]
    table += [("SETTINGS THAT DIFFER", "", "")] + (_cells(settings) or [("none", "", "")])
    table += [("RESULTS", "", ""), *_cells(results)]
    _print(table)


def _dataset(service: TrainingService, view: RunView) -> dict[str, Any]:
    """What the run was trained on, with the hash of its content."""
    recorded: Any = service.store.find(view.run_id).provenance() or {}
    about: list[Any] = recorded.get("tasks") or [recorded.get("dataset") or {}]
    hashes = [one.get("provenance", {}).get("content_hash") for one in about]
    rows = [one.get("used") for one in about if one]
    return {
        "dataset": view.dataset,
        "content_hash": hashes[0] if len(hashes) == 1 else hashes,
        "rows_used": rows[0] if len(rows) == 1 else rows or None,
    }


def _result(view: RunView) -> dict[str, Any]:
    result = view.result if isinstance(view.result, TrainingResult) else None
    return {
        "status": view.status.value,
        "steps": f"{view.step}/{view.total_steps or '?'}",
        "first loss": view.first_loss,
        "last loss": view.loss,
        "loss curve": sparkline(view.losses),
        "losses": rounded(view.losses),
        "held-out before": view.eval_loss_before,
        "held-out after": view.eval_loss,
        "verdict": view.verdict,
        "engine": result.engine if result else None,
        "device": result.device if result else None,
        "tokens/s": round(result.tokens_per_s) if result else view.tokens_per_s,
        "peak memory MiB": result.peak_memory_mib if result else None,
        "time": _time(view),
    }


def _time(view: RunView) -> str | None:
    if view.started_at is None or view.ended_at is None:
        return None
    return duration(seconds_since(view.started_at) - seconds_since(view.ended_at))


def _beside(facts: Sequence[dict[str, Any]]) -> Rows:
    names = dict.fromkeys(name for one in facts for name in one)
    return {name: (facts[0].get(name), facts[1].get(name)) for name in names}


def _differing(rows: Rows) -> Rows:
    return {name: values for name, values in rows.items() if values[0] != values[1]}


def _cells(rows: Rows) -> list[tuple[str, str, str]]:
    """As text; what both runs have is written once, and what neither has is left out."""
    return [
        (name, _cell(first), "same" if first == second else _cell(second))
        for name, (first, second) in rows.items()
        if (first, second) != (None, None) and name != "losses"
    ]


def _cell(value: Any) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, float):
        return f"{value:.5g}"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return one_line(text, CELL)


def _print(table: Sequence[tuple[str, str, str]]) -> None:
    widths = [max(len(row[column]) for row in table) for column in range(2)]
    for name, first, second in table:
        say(f"{name:<{widths[0]}}  {first:<{widths[1]}}  {second}".rstrip())
