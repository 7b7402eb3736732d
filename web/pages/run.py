"""One run: its course, its result, and what can be done with it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from ...tools.loss_plot import loss_plot
from ...training.config.ledger import Ledger
from ...training.config.results import InspectResult, MultiRunResult
from ...training.config.specs import TRAININGS, Spec
from ...training.errors import InputError
from ...training.runs.folder import ENDED
from ...training.runs.loss_curve import LossCurve
from ..desk import desk_of
from ..live import log_line
from ..look import clean, clean_text, page, to_run
from ..told import told_run

TABLE_ROWS = 40
LINES = 200


async def show(request: Request) -> Response:
    """The run, readable without scripts; a script goes on with what moves."""
    service = desk_of(request).service
    view = await service.get(request.path_params["run_id"])
    if isinstance(view.result, InspectResult):
        return RedirectResponse(f"/dataset?run={view.run_id}", 303)
    curve = await service.curve(view.run_id)
    events = (await service.latest_events(view.run_id))[-LINES:]
    spec = service.store.find(view.run_id).spec()
    ledger = view.result.ledger if isinstance(view.result, MultiRunResult) else None
    return page(
        request,
        "run.html",
        run=told_run(view),
        live=view.status not in ENDED,
        trains=view.kind in TRAININGS,
        curve=points_of(curve),
        rows=_rows(curve),
        ledger=clean(ledger_table(ledger)) if ledger and ledger.runs else None,
        events=clean([log_line(event) for event in events]),
        log=clean_text(await service.log_tail(view.run_id)),
        settings=clean(_settings(spec)),
        same=request.query_params.get("same") == "1",
    )


async def picture(request: Request) -> Response:
    """The losses as a picture, for browsers without scripts."""
    drawn = loss_plot(await desk_of(request).service.curve(request.path_params["run_id"]))
    if drawn is None:
        return Response("There are no losses yet.", 404)
    return Response(drawn, media_type="image/png")


async def cancel(request: Request, form: Mapping[str, str]) -> Response:
    """Ask the run to stop; its page tells when it has."""
    view = await desk_of(request).service.cancel(request.path_params["run_id"])
    return to_run(view.run_id)


async def resume(request: Request, form: Mapping[str, str]) -> Response:
    """Queue the run again, from its last checkpoint."""
    allowed = form.get("allow_other_base") == "on"
    view = await desk_of(request).service.resume(request.path_params["run_id"], allow_other_base=allowed)
    return to_run(view.run_id)


async def extend(request: Request, form: Mapping[str, str]) -> Response:
    """Train on from the run's adapter, to more steps than it had."""
    steps = form.get("steps", "")
    if not steps.isdecimal() or len(steps) > 8:
        raise InputError("steps is no number of steps.", hint="Give the total, with the steps of this run.")
    submission = await desk_of(request).service.resume_or_extend(request.path_params["run_id"], int(steps))
    return to_run(submission.run_id)


async def delete(request: Request, form: Mapping[str, str]) -> Response:
    """Remove the run permanently; the form has asked for consent."""
    if form.get("confirmed") != "on":
        raise InputError("The run was not removed.", hint="Tick that it may be removed.")
    await desk_of(request).service.delete(request.path_params["run_id"])
    return RedirectResponse("/runs", 303)


def points_of(curve: LossCurve) -> dict[str, Any]:
    """The curve as the dashboard's script keeps it."""
    return {
        "seq": curve.seq,
        "steps": [point.step for point in curve.losses],
        "losses": [_finite(point.loss) for point in curve.losses],
        "evalSteps": [point.step for point in curve.evals],
        "evalLosses": [_finite(point.loss) for point in curve.evals],
        "begins": [*curve.begins],
    }


def ledger_table(ledger: Ledger) -> dict[str, Any]:
    """Losses of each task: of the base, and after each run."""
    rows = [
        {
            "name": task.name,
            "rows": f"{task.scored_rows} {task.scored_on.replace('_', '-')}",
            "losses": [-task.base_score, *(_loss(run.scores, index) for run in ledger.runs)],
            "own": index + 1,
            "answers": _answers(ledger, index),
        }
        for index, task in enumerate(ledger.tasks)
    ]
    runs = [{"run": run.run, "scale": run.scale, "steps": run.steps, "kept": run.kept} for run in ledger.runs]
    return {"mode": ledger.merge_mode, "runs": runs, "tasks": rows}


def _answers(ledger: Ledger, task: int) -> list[str]:
    """Shares of right answers: of the base, after the task's own run, and at the end."""
    kept = task < len(ledger.kept)
    return [f"{share:.0%}" for share in ledger.accuracies_of(task)] if kept else []


def _loss(scores: list[float], task: int) -> float | None:
    return -scores[task] if task < len(scores) else None


def _finite(loss: float) -> float | None:
    return loss if math.isfinite(loss) else None


def _rows(curve: LossCurve) -> list[tuple[int, float | None, float | None]]:
    """Step, training loss and held-out loss, as few rows as a person reads."""
    held_out = {point.step: point.loss for point in curve.evals}
    step = max(1, len(curve.losses) // TABLE_ROWS)
    training = {point.step: point.loss for point in [*curve.losses[::step], *curve.losses[-1:]]}
    return [(at, training.get(at), held_out.get(at)) for at in sorted({*training, *held_out})]


def _settings(spec: Spec) -> dict[str, dict[str, Any]]:
    """What was asked for, by group, without what is empty."""
    asked = spec.model_dump(mode="json", exclude={"roots", "format_version", "kind"})
    groups: dict[str, dict[str, Any]] = {
        name: value for name, value in asked.items() if isinstance(value, dict)
    }
    plain = {name: value for name, value in asked.items() if name not in groups}
    every: dict[str, dict[str, Any]] = ({"run": plain} if plain else {}) | groups
    return {
        group: kept
        for group, values in every.items()
        if (kept := {name: value for name, value in values.items() if value not in (None, "", [], {})})
    }
