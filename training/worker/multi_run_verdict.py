"""The verdict on the merged adapter of a multi-run: beside its base, on held-out rows of all its tasks."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..config.results import Verdict
from ..data.tokens.example import Example
from ..data.tokens.kept_rows import in_turn
from .context import RunContext
from .multi_run_loop import MultiRunLoop
from .multi_run_tasks import ReadyRuns

if TYPE_CHECKING:
    from ..evaluation.judge import Affordable

TIMED_ROWS = 8


def verdict_of(context: RunContext, ready: ReadyRuns, loop: MultiRunLoop) -> Verdict | str:
    """The verdict, or why there is none, on the adapter that the model has."""
    from ..engine.out_of_memory import memory_errors
    from ..evaluation.judge import judge

    done = ready.tasks[: len(loop.ledger.kept)]
    rows = in_turn([task.scored for task in done if task.scored_on == "held_out"])
    if not rows:
        return "no rows were held out"

    with memory_errors(ready.plans[0], "evaluating"):
        return judge(
            loop.model,
            rows,
            ready.tokenizer,
            _affordable(loop, rows),
            context.report,
            context.should_stop,
        )


def _affordable(loop: MultiRunLoop, rows: Sequence[Example]) -> Affordable:
    """A share of the time of this attempt's trainings; without one, the speed is measured on some rows."""
    from ..evaluation.judge import COST, Affordable

    tokens = sum(outcome.tokens for outcome in loop.outcomes)
    seconds = sum(outcome.seconds for outcome in loop.outcomes)
    if tokens:
        return Affordable.after(tokens, seconds)
    started, timed = time.monotonic(), rows[:TIMED_ROWS]
    loop.model.losses(timed)
    return Affordable.after(
        round(COST * sum(len(row.input_ids) for row in timed)), time.monotonic() - started
    )
