"""Measures a tuned model beside its base on rows that neither was trained on."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from ..config.results import GeneralProbe, Verdict, WorseRow
from ..data.cleaning.untrusted_text import safe_line
from ..data.tokens.example import Example
from ..engine.loaded_model import LoadedModel
from ..engine.loop.example_losses import ExampleLoss
from ..events import Phase, Report, ShouldStop, throttled
from .general_probe import general_examples
from .other_questions import OTHERS, exchanged
from .paired_difference import Difference, paired_difference
from .verdict import FEWEST_ROWS, Measured, judged

MOST_ROWS = 200
"""Held-out rows that are measured; more make the interval narrower, and not the verdict another."""
SHARE = 0.1
"""Of the training's time that a verdict may take; `FREE_S` seconds are always allowed."""
FREE_S = 1.0
COST = 1 / 3
"""Of a token that is measured, as a share of one that is trained on."""
PASSES = 2 + OTHERS
"""Measurements of a held-out row: base, tuned, and its answer after other questions. A row with several
answers is measured once more, with its last one only."""
FOR_ANSWERS = 0.3
"""Share of the time that is left for answers to held-out questions, unless too few rows could be measured."""
SHOWN_ROWS, SHOWN_TOKENS, SHOWN_CHARACTERS = 3, 96, 120
"""Of rows that got worse, and of each."""
TOGETHER = 32
"""Rows between two looks at whether to stop."""


@dataclass(frozen=True)
class Affordable:
    """The tokens that may be measured.

    Args:
        tokens: counted once for each measurement.
    """

    tokens: float

    @classmethod
    def after(cls, tokens: int, seconds: float) -> Affordable:
        """For a training of so many tokens in so many seconds."""
        per_s = tokens / COST / max(seconds, 1e-6)
        return cls(per_s * allowed_s(seconds))

    def first(self, examples: Sequence[Example], passes: int, most: int) -> list[Example]:
        """The first examples that can be measured so many times."""
        chosen: list[Example] = []
        left = self.tokens / passes
        for example in examples[:most]:
            left -= len(example.input_ids)
            if left < 0:
                break
            chosen.append(example)
        return chosen


def allowed_s(seconds: float) -> float:
    """Seconds that a verdict may take after a training of so many."""
    return max(FREE_S, SHARE * seconds)


class Stopped(Exception):
    """The user has cancelled the run."""


def judge(
    model: LoadedModel,
    held_out: Sequence[Example],
    tokenizer: Any,
    affordable: Affordable,
    report: Report,
    should_stop: ShouldStop,
) -> Verdict | str:
    """The verdict on a model that has just been trained, or why there is none.

    Args:
        held_out: examples that were not trained on.
    """
    several = any(one.own != held_out[one.row] for one in exchanged(held_out[:MOST_ROWS]))
    passes = PASSES + several
    most = Affordable((1 - FOR_ANSWERS) * affordable.tokens)
    rows = most.first(held_out, passes, MOST_ROWS)
    if len(rows) < FEWEST_ROWS:
        rows = affordable.first(held_out, passes, FEWEST_ROWS)
    if len(held_out) < FEWEST_ROWS:
        return f"a verdict needs {FEWEST_ROWS} held-out rows, and there are {len(held_out)}"
    if len(rows) < FEWEST_ROWS:
        return (
            f"measuring {FEWEST_ROWS} held-out rows would take more than a tenth of the training's time; "
            "a longer training gets one, and an evaluation measures them now"
        )
    started = time.monotonic()
    left = Affordable(most.tokens - passes * sum(len(row.input_ids) for row in rows))
    general = general_examples(tokenizer)
    probe = left.first(general, 2, len(general))
    answers = exchanged(rows)
    own = [one.own for one in answers] if several else []
    others = [example for one in answers for example in one.others]
    tuned, base = (rows, probe, own, others), (rows, probe)
    what = f"comparing with the base model on {len(rows)} held-out rows"
    losses = _Losses(model, what, sum(map(len, (*tuned, *base))), report, should_stop)
    try:
        after, general_after, after_own, after_others = map(losses.of, tuned)
        with _base(model):
            before, general_before = map(losses.of, base)
    except Stopped:
        return "the run was cancelled while it was judged"
    measured = Measured(
        rows=len(rows),
        held_out=len(held_out),
        loss_before=mean_loss(before),
        loss_after=mean_loss(after),
        difference=loss_difference(before, after),
        association=association_of(after_own or [after[one.row] for one in answers], after_others),
        general=_general(general_before, general_after),
    )
    worse = _worse_rows(rows, before, after, tokenizer)
    return judged(measured, worse, round(time.monotonic() - started, 2))


@contextmanager
def _base(model: LoadedModel) -> Generator[None]:
    """Without the LoRA while the context lasts."""
    tuned = model.adapter_values()
    model.set_adapter_values(torch.zeros_like(tuned))
    try:
        yield
    finally:
        model.set_adapter_values(tuned)


class _Losses:
    """Losses of examples, which tell how much of all is done, and stop on request.

    Args:
        what: is done, for people.
        total: of examples that will be measured.
    """

    def __init__(
        self, model: LoadedModel, what: str, total: int, report: Report, should_stop: ShouldStop
    ) -> None:
        self._model, self._what, self._total = model, what, total
        self._report, self._should_stop = throttled(report), should_stop
        self._done = 0
        self._report(Phase(phase="judging", message=what))

    def of(self, examples: Sequence[Example]) -> list[ExampleLoss]:
        found: list[ExampleLoss] = []
        for start in range(0, len(examples), TOGETHER):
            if self._should_stop():
                raise Stopped
            found += self._model.losses(examples[start : start + TOGETHER])
            self._tell(len(examples[start : start + TOGETHER]))
        return found

    def _tell(self, more: int) -> None:
        self._done += more
        share = self._done / self._total
        self._report(Phase(phase="judging", message=f"{self._what}: {share:.0%}", fraction=share))


def mean_loss(losses: Sequence[ExampleLoss]) -> float:
    return sum(one.total for one in losses) / max(1, sum(one.label_tokens for one in losses))


def loss_difference(before: Sequence[ExampleLoss], after: Sequence[ExampleLoss]) -> Difference:
    return paired_difference(
        [one.total for one in before], [one.total for one in after], [one.label_tokens for one in before]
    )


def association_of(own: Sequence[ExampleLoss], others: Sequence[ExampleLoss]) -> Difference | None:
    """How much the loss of an answer rises, on average over `OTHERS` other questions."""
    if len(own) < FEWEST_ROWS:
        return None
    totals = [one.total for one in others]
    means = [sum(totals[at : at + OTHERS]) / OTHERS for at in range(0, len(totals), OTHERS)]
    return paired_difference([one.total for one in own], means, [one.label_tokens for one in own])


def _general(before: Sequence[ExampleLoss], after: Sequence[ExampleLoss]) -> GeneralProbe | None:
    if len(before) < FEWEST_ROWS:
        return None
    difference = loss_difference(before, after)
    return GeneralProbe(
        questions=len(before),
        loss_before=round(mean_loss(before), 4),
        loss_after=round(mean_loss(after), 4),
        low=round(difference.low, 4),
        high=round(difference.high, 4),
    )


def _worse_rows(
    rows: Sequence[Example],
    before: Sequence[ExampleLoss],
    after: Sequence[ExampleLoss],
    tokenizer: Any,
) -> list[WorseRow]:
    """The rows whose loss rose, those first whose loss rose most."""
    found = [
        WorseRow(
            untrusted_text=safe_line(tokenizer.decode(list(row.input_ids[:SHOWN_TOKENS])), SHOWN_CHARACTERS),
            loss_before=round(mean_loss([old]), 4),
            loss_after=round(mean_loss([new]), 4),
        )
        for row, old, new in zip(rows, before, after, strict=True)
        if new.total > old.total
    ]
    return sorted(found, key=lambda row: row.loss_before - row.loss_after)[:SHOWN_ROWS]
