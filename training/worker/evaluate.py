"""Executes an evaluation: the same rows through one model, then through the other, and what differs.

Models are loaded one after the other, so that both need not fit into memory together. A model and its own
base are loaded once.
"""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config.results import EvaluateResult
from ..config.scores import TaskScores
from ..config.specs import EvaluateSpec, ModelReference
from ..errors import InputError
from ..evaluation.encoded import EncodedRow, RowEncoder, equal_labels
from ..evaluation.pattern import require_pattern
from ..evaluation.rows import EvaluationRow
from ..evaluation.wanted import Wanted, wanted_of
from ..models.token_limits import token_limits
from ..next_step import then
from ..untrusted import shown_path
from .context import RunContext, WaitForDevice, use_threads
from .evaluation_rows import ChosenRows, chosen_rows, require_readable, trained_hashes
from .export_ahead import why_no_gguf
from .generate import load
from .trained_base import require_base_of_adapter

if TYPE_CHECKING:
    from ..engine.tuned_model import TunedModel
    from ..evaluation.compare import Values
    from ..evaluation.measure import Measured, Progress

IN_4BIT = then("ask_again", load_in_4bit=True)


def run(context: RunContext, wait_for_device: WaitForDevice) -> None:
    """Compare the models, and record the result.

    Raises:
        InputError: a model or a metric cannot be used with these rows.
        DatasetError: the dataset cannot be used.
        ModelLoadError: a model cannot be loaded.
        GpuOutOfMemoryError: one does not fit into memory.
        TrainingAbortedError: it was cancelled.
    """
    spec = context.run.spec()
    assert isinstance(spec, EvaluateSpec)
    if spec.pattern is not None:
        require_pattern(spec.pattern)
    for one in spec.models:
        if one.adapter:
            context.permit_links(Path(one.adapter), "source" if one is spec else "against")
    require_readable(context, spec)
    wait_for_device()
    context.recorder.completed(_Evaluation(context, spec).result())


@dataclass(frozen=True)
class _Side:
    """One of the two models.

    Args:
        name: within a sentence.
        role: the same, shorter, for progress.
        rows: encoded in its tokens.
        adapter: False for a base that is measured by switching the adapter off.
    """

    name: str
    role: str
    reference: ModelReference
    rows: list[EncodedRow]
    adapter: bool


class _Evaluation:
    """One evaluation on its way."""

    def __init__(self, context: RunContext, spec: EvaluateSpec) -> None:
        self._context, self._spec = context, spec
        self._device = ""

    def result(self) -> EvaluateResult:
        encoders = self._encoders()
        chosen, sides, left_out = self._rows(encoders)
        trained_on = self._trained_on(chosen)
        wanted = wanted_of(self._spec, chosen.rows, [side.rows for side in sides])
        started = self._context.recorder.working_s()
        this, against = self._measured(sides, wanted)
        seconds = self._context.recorder.working_s() - started
        return self._result(chosen, sides, wanted.metrics, this, against).model_copy(
            update={
                "trained_on": trained_on,
                "left_out": left_out,
                "tokens": sum(reply.tokens for one in (this, against) for reply in one.replies.values()),
                "seconds": round(seconds, 2),
                "device": self._device,
                "no_gguf": why_no_gguf(encoders[0][1]),
            }
        )

    # --- Rows. ---
    def _encoders(self) -> list[tuple[Any, Path]]:
        """The tokenizer and the folder of each model."""
        use_threads(None)
        folders = [self._context.model_folder(one.model) for one in self._spec.models]
        self._context.recorder.phase("loading", "importing torch and transformers")
        from ..engine.tuned_model import tokenizer_of

        found: list[tuple[Any, Path]] = []
        for one, folder in zip(self._spec.models, folders, strict=True):
            require_base_of_adapter(self._context, one, folder)
            found.append((tokenizer_of(folder, Path(one.adapter) if one.adapter else None), folder))
        self._context.require_permitted()
        return found

    def _rows(self, models: Sequence[tuple[Any, Path]]) -> tuple[ChosenRows, list[_Side], dict[str, int]]:
        """The rows that both models can be measured on, and why others cannot."""
        tokenizer, folder = models[0]
        added = RowEncoder(tokenizer, self._spec.data, token_limits(folder)).added_tokens
        chosen = chosen_rows(self._context, self._spec, tokenizer, added, folder)
        self._context.recorder.phase("preparing", "preparing the rows")
        encoded: list[list[EncodedRow]] = []
        for tokenizer, folder in models:
            encoder = RowEncoder(tokenizer, chosen.data, token_limits(folder))
            encoded.append([encoder.encoded(row) for row in chosen.rows])
        reasons = [next((one.reason for one in row if one.reason), "") for row in zip(*encoded, strict=True)]
        kept = [place for place, reason in enumerate(reasons) if not reason]
        if not kept:
            raise InputError(
                f"None of the {len(reasons)} rows can be measured: {', '.join(sorted(set(reasons)))}.",
                next=then("inspect", dataset=self._spec.data.source or ..., model=self._spec.model.name),
            )
        rows = [[side[place] for place in kept] for side in encoded]
        sides = self._sides(rows[0], rows[-1])
        left_out = dict(Counter(reason for reason in reasons if reason))
        for reason, count in left_out.items():
            self._context.recorder.warn(f"{count} rows are left out: {reason.replace('_', ' ')}.")
        kept_rows = [chosen.rows[place] for place in kept]
        return ChosenRows(kept_rows, chosen.in_all, chosen.data, chosen.held_out), sides, left_out

    def _sides(self, this: list[EncodedRow], against: list[EncodedRow]) -> list[_Side]:
        spec = self._spec
        first = _Side(_name(spec), "this model", spec, this, adapter=True)
        if spec.against is None:
            return [first, _Side("its base", "its base", spec, against, adapter=False)]
        return [first, _Side(_name(spec.against), "the other model", spec.against, against, adapter=True)]

    def _trained_on(self, chosen: ChosenRows) -> int | None:
        """Rows that one of the models was trained on; the user is told of them."""
        runs = [one.run for one in self._spec.models if one.run]
        known = trained_hashes(self._context, runs) if len(runs) == self._adapters() else None
        if known is None:
            self._context.recorder.warn(
                "It is not known whether these rows were trained on: the training's data is not here."
            )
            return None
        count = sum(row.hash in known for row in chosen.rows)
        if count:
            self._context.recorder.warn(
                f"{count} of {len(chosen.rows)} rows were trained on: on these, the scores show what was "
                "remembered, not what was learnt."
            )
        return count

    def _adapters(self) -> int:
        return sum(one.adapter is not None for one in self._spec.models)

    # --- Measurements. ---
    def _measured(self, sides: Sequence[_Side], wanted: Wanted) -> list[Measured]:
        """Of each side; one model is loaded for both if they differ by the adapter only."""
        from ..evaluation.measure import Progress

        again = self._spec.against is None
        progress = Progress(self._context.report, 2 * wanted.parts, self._context.should_stop)
        found: list[Measured] = []
        model: TunedModel | None = None
        for side in sides:
            if model is None or not again:
                model = None  # its memory is needed for the next one
                gc.collect()
                model = load(self._context, side.reference, IN_4BIT)
            found.append(self._measure(model, side, wanted, progress, judged=side is sides[0]))
        return found

    def _measure(
        self, model: TunedModel, side: _Side, wanted: Wanted, progress: Progress, *, judged: bool
    ) -> Measured:
        from ..engine.tuned_model import memory_errors
        from ..evaluation.measure import measure

        self._device = model.device
        with memory_errors("measuring", None if side.reference.model.load_in_4bit else IN_4BIT):
            return measure(model, side.rows, wanted, side.role, progress, adapter=side.adapter, judged=judged)

    # --- The result. ---
    def _result(
        self,
        chosen: ChosenRows,
        sides: Sequence[_Side],
        metrics: Sequence[str],
        this: Measured,
        against: Measured,
    ) -> EvaluateResult:
        from ..evaluation.compare import flips, sentence, values_of, verdict_of

        found = list(
            values_of(metrics, chosen.rows, this, against, self._sizes(chosen, sides), self._spec.pattern)
        )
        first = found[0]
        comparable = first.metric == "loss"
        verdict, reason = verdict_of(first, this.association if comparable else None)
        scores = [values.score() for values in found]
        shown = next((values for values in found if values.right_or_wrong), None)
        return EvaluateResult(
            summary=sentence(verdict, reason, scores[0], chosen.in_all, sides[1].name),
            verdict=verdict,
            this=sides[0].name,
            against=sides[1].name,
            rows=len(chosen.rows),
            rows_in_all=chosen.in_all,
            scores=scores,
            tasks=_by_task(found, chosen.rows),
            flips=flips(shown, chosen.rows, this, against) if shown else [],
        )

    def _sizes(self, chosen: ChosenRows, sides: Sequence[_Side]) -> list[int] | None:
        """Bytes of each row's trained text, if the two models split it into other tokens."""
        if equal_labels(sides[0].rows, sides[1].rows):
            return None
        self._context.recorder.warn(
            "The two models have different tokens: the loss is compared in bits per byte of text."
        )
        return [len(row.texts(chosen.data.train_on).encode()) for row in chosen.rows]


def _name(reference: ModelReference) -> str:
    if reference.run:
        return f"run {reference.run}"
    return shown_path(Path(reference.adapter).name if reference.adapter else Path(reference.model.name).name)


def _by_task(found: Sequence[Values], rows: Sequence[EvaluationRow]) -> list[TaskScores]:
    """The scores of each task, if there are several."""
    tasks = list(dict.fromkeys(row.task for row in rows))
    if len(tasks) < 2:
        return []
    of_task = {task: {place for place, row in enumerate(rows) if row.task == task} for task in tasks}
    return [
        TaskScores(task=task, scores=[part.score() for values in found if (part := values.of(places)).rows])
        for task, places in of_task.items()
    ]
