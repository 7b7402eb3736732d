"""The ledger of a multi-run: the score on every task after each run, and what these say about forgetting."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import BaseModel, ConfigDict


class LedgerRecord(BaseModel):
    """A part of the ledger. Unknown fields, e.g. of a newer version, are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)


class LedgerTask(LedgerRecord):
    """A task, and the rows that it is scored on.

    Args:
        name: given by the user, or the number of the chunk.
        rows: examples that its run trains on, replayed ones not counted.
        replayed: examples of earlier tasks that its run trains on again.
        scored_on: `training` where the task has no held-out rows.
        scored_rows: number of examples that the score is over.
        base_score: of the base model, before the first run.
    """

    name: str
    rows: int
    replayed: int = 0
    scored_on: Literal["held_out", "training"]
    scored_rows: int
    base_score: float


class LedgerRun(LedgerRecord):
    """A run and its merge.

    Args:
        run: its number, from 1.
        steps: optimizer steps.
        scale: λ of the merge.
        scores: of the merged adapter, on each task so far.
        scale_scores: with merge_scale="auto", each λ that was tried, and its mean score on the tasks so far.
        kept: False for a merge that forgot more than max_forgetting; the one before it is delivered.
    """

    run: int
    steps: int
    learning_rate: float
    scale: float
    scores: list[float]
    scale_scores: dict[str, float] = {}
    kept: bool = True


class Ledger(LedgerRecord):
    """`runs[i].scores[t]` is a[t, i]: the score on task t after run i.

    Args:
        score: what a score is. Higher is better; a difference of 1 is a point.
        tasks: in the order of their runs.
    """

    format_version: Literal[1] = 1
    score: str = "minus the mean loss per label token, in nats"
    merge_mode: str
    merge_scale: str | None = None
    tasks: list[LedgerTask] = []
    runs: list[LedgerRun] = []

    @property
    def kept(self) -> list[LedgerRun]:
        """The runs that are in the delivered adapter."""
        return [run for run in self.runs if run.kept]

    @property
    def average(self) -> float | None:
        """The mean over the tasks of a[t, T], T being the last kept run; None without one."""
        return mean_of(self.kept[-1].scores) if self.kept else None

    @property
    def backward_transfer(self) -> float | None:
        """The mean over the tasks t < T of a[t, T] - a[t, t]; None with fewer than two runs."""
        if len(self.kept) < 2:
            return None
        last = self.kept[-1].scores
        return mean_of([last[t] - run.scores[t] for t, run in enumerate(self.kept[:-1])])

    @property
    def forgetting(self) -> list[float]:
        """Of each task t < T: the best a[t, i] of an earlier run i, minus a[t, T]; below 0 it got better."""
        return forgetting_of(self.kept)


def forgetting_of(runs: list[LedgerRun]) -> list[float]:
    """See `Ledger.forgetting`; the last of `runs` is T."""
    if not runs:
        return []
    *earlier, last = runs
    return [
        max(run.scores[task] for run in earlier[task:]) - last.scores[task] for task in range(len(earlier))
    ]


def mean_of(scores: list[float]) -> float:
    return math.fsum(scores) / len(scores)
