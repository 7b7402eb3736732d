"""The rows of an evaluation in a worker: a dataset's, or those that a training run held out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..config.specs import DataGroup, EvaluateSpec, MultiRunSpec, TrainingSpec, TrainSpec
from ..data.chat_template.control_tokens import control_tokens
from ..data.cleaning.transforms import Transforms
from ..data.findings import meaning_of, rows_of
from ..data.prepare import prepared_before
from ..errors import DatasetError, InputError
from ..evaluation.rows import DEFAULT_ROWS, EvaluationRow, Rows, evaluation_rows
from ..runs.folder import RunFolder
from .context import RunContext
from .examples import examples_again
from .multi_run_tasks import request_of_run


@dataclass(frozen=True)
class ChosenRows:
    """The rows that are measured, and how they are encoded.

    Args:
        in_all: rows that they are drawn from.
        data: settings of the encoding.
        held_out: whether they are the held-out rows of the run.
    """

    rows: list[EvaluationRow]
    in_all: int
    data: DataGroup
    held_out: bool


def require_readable(context: RunContext, spec: EvaluateSpec) -> None:
    """Refuse a dataset's bad rows before the run waits for its device."""
    if spec.data.source is not None:
        _read(context, spec, spec.data, frozenset(), None)


def chosen_rows(
    context: RunContext, spec: EvaluateSpec, tokenizer: Any, added_tokens: frozenset[str], model: Path
) -> ChosenRows:
    """The rows of the request.

    Args:
        tokenizer, model: of the run whose held-out rows are measured.

    Raises:
        DatasetError: the dataset cannot be read, or it has changed since the training.
        InputError: the run has no held-out rows.
    """
    if spec.data.source is not None:
        found = _read(context, spec, spec.data, added_tokens, None)
        _warn_about_rows(context, found)
        return ChosenRows(found.chosen, found.usable, spec.data, held_out=False)
    run = RunFolder(context.run.path.parent / str(spec.run))
    trained = run.request_now()
    assert isinstance(trained, TrainingSpec)
    tasks = list(_held_out(context, spec, run, trained, tokenizer, added_tokens, model))
    rows = [row for task in tasks for row in task.chosen]
    if not rows:
        raise InputError(
            f"Run {run.run_id} has no held-out rows.", hint="Give a dataset of rows that were not trained on."
        )
    return ChosenRows(rows, sum(task.usable for task in tasks), trained.data, held_out=True)


def _held_out(
    context: RunContext,
    spec: EvaluateSpec,
    run: RunFolder,
    trained: TrainingSpec,
    tokenizer: Any,
    added_tokens: frozenset[str],
    model: Path,
) -> Iterator[Rows]:
    """The held-out rows of each task; `samples` is shared among them."""
    keys = tokens_keys(run)
    if not keys:
        raise InputError(f"Run {run.run_id} has not prepared its data.", hint="Resume it, or give a dataset.")
    several = isinstance(trained, MultiRunSpec) and bool(trained.tasks)
    share = max(1, (spec.data.samples or DEFAULT_ROWS) // len(trained.datasets))
    for index, (data, key) in enumerate(zip(trained.datasets, keys, strict=False)):
        held_out = examples_again(context, _as_training(trained, data), tokenizer, model, key).held_out
        wanted = data.model_copy(update={"samples": share})
        found = _read(context, spec, wanted, added_tokens, frozenset(held_out.hashes()))
        if several and isinstance(trained, MultiRunSpec):
            name = trained.tasks[index].name
            found.chosen = [replace(row, task=name) for row in found.chosen]
        if len(held_out) and not found.usable:
            raise DatasetError(
                f"Dataset {index + 1} of the training has none of the rows that were held out.",
                hint="Restore the dataset, or give one.",
            )
        yield found


def _as_training(trained: TrainingSpec, data: DataGroup) -> TrainSpec:
    return request_of_run(trained, data) if isinstance(trained, MultiRunSpec) else _train_spec(trained)


def _train_spec(trained: TrainingSpec) -> TrainSpec:
    assert isinstance(trained, TrainSpec)
    return trained


def _read(
    context: RunContext,
    spec: EvaluateSpec,
    data: DataGroup,
    added_tokens: frozenset[str],
    only: frozenset[str] | None,
) -> Rows:
    return evaluation_rows(
        data,
        Transforms(data, control_tokens(added_tokens)),
        only,
        context.permit,
        context.report,
        context.should_stop,
        spec.seed,
    )


def _warn_about_rows(context: RunContext, found: Rows) -> None:
    for note in found.notes:
        context.recorder.warn(note)
    for one in found.findings.sorted():
        if one.severity == "warning":
            context.recorder.warn(f"{one.sentence()}.")
        elif one.severity == "error":
            first = ", ".join(map(str, one.places))
            context.recorder.warn(
                f"Dropped: {rows_of(one.count)} that {meaning_of(one.kind, one.count)} ({first})."
            )


# --- Rows that a model knows already. ---
def tokens_keys(run: RunFolder) -> list[str]:
    """The keys of a run's tokenised data, one for each of its datasets."""
    plan: dict[str, Any] = run.plan() or {}
    plans: list[dict[str, Any]] = plan.get("runs") or [plan]
    return list(dict.fromkeys(str(one["tokens_key"]) for one in plans if one.get("tokens_key")))


def trained_hashes(context: RunContext, run_ids: list[str]) -> set[str] | None:
    """The content hashes of all rows that these runs, and those that they continue, were trained on.

    None if the tokenised data of one are no longer in the cache.
    """
    found: set[str] = set()
    waiting = [*run_ids]
    while waiting:
        run = RunFolder(context.run.path.parent / waiting.pop())
        spec = run.spec()
        if isinstance(spec, TrainSpec) and spec.parent:
            waiting.append(spec.parent)
        for key in tokens_keys(run):
            data = prepared_before(context.home / "cache" / "tokens", key)
            if data is None:
                return None
            found |= set(data.train.hashes())
    return found
