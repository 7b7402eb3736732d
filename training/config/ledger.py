"""The ledger of a multi-run: the score on every task after each run, and what these say about forgetting."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from ..errors import RunFolderError
from ..files.atomic_json import read_json, write_json
from ..next_step import then
from ..untrusted import shown_path

LEDGER = "ledger.json"


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
        answered_rows: questions among the scored examples whose answers are compared; see `Ledger`.
        base_accuracy: of the base model; None without such questions.
    """

    name: str
    rows: int
    replayed: int = 0
    scored_on: Literal["held_out", "training"]
    scored_rows: int
    base_score: float
    answered_rows: int = 0
    base_accuracy: float | None = None


class LedgerRun(LedgerRecord):
    """A run and its merge.

    Args:
        run: its number, from 1.
        steps: optimizer steps.
        scale: λ of the merge.
        scores: of the merged adapter, on each task so far.
        accuracies: likewise; None for a task without questions.
        scale_scores: with merge_scale="auto", each λ that was tried, and its mean score on the tasks so far.
        kept: False for a merge that forgot more than max_forgetting; the one before it is delivered.
    """

    run: int
    steps: int
    learning_rate: float
    scale: float
    scores: list[float]
    accuracies: list[float | None] = []
    scale_scores: dict[str, float] = {}
    kept: bool = True


class Ledger(LedgerRecord):
    """`runs[i].scores[t]` is a[t, i]: the score on task t after run i; `accuracies` has the same form.

    Args:
        score: what a score is. Higher is better; a difference of 1 is a point.
        accuracy: what an accuracy is, from 0 to 1.
        tasks: in the order of their runs; those of an earlier run that is continued come first.
    """

    format_version: Literal[1] = 1
    score: str = "minus the mean loss per label token, in nats"
    accuracy: str = "share of the questions whose greedy answer is the row's, by exact match"
    merge_mode: str
    merge_scale: str | None = None
    tasks: list[LedgerTask] = []
    runs: list[LedgerRun] = []

    @property
    def kept(self) -> list[LedgerRun]:
        """The runs that are in the delivered adapter."""
        return [run for run in self.runs if run.kept]

    def after(self, run: int) -> Ledger:
        """The ledger as it was after this run."""
        return self.model_copy(update={"tasks": self.tasks[:run], "runs": self.kept[:run]})

    @property
    def average(self) -> float | None:
        """The mean over the tasks of a[t, T], T being the last kept run; None without one."""
        return average_of(self._scores)

    @property
    def backward_transfer(self) -> float | None:
        """The mean over the tasks t < T of a[t, T] - a[t, t]; None with fewer than two runs."""
        return backward_transfer_of(self._scores)

    @property
    def forgetting(self) -> list[float]:
        """Of each task t < T: the best a[t, i] of an earlier run i, minus a[t, T]; below 0 it got better."""
        return [lost for lost in forgetting_of(self._scores) if lost is not None]

    @property
    def average_accuracy(self) -> float | None:
        """As `average`, over the tasks with questions."""
        return average_of(self._accuracies)

    @property
    def accuracy_backward_transfer(self) -> float | None:
        """As `backward_transfer`, over the tasks with questions."""
        return backward_transfer_of(self._accuracies)

    @property
    def accuracy_forgetting(self) -> list[float | None]:
        """As `forgetting`; None for a task without questions."""
        return forgetting_of(self._accuracies)

    def accuracies_of(self, task: int) -> list[float]:
        """Of the base model, after the task's own run, and of the last merge; empty without questions."""
        base, matrix = self.tasks[task].base_accuracy, self._accuracies
        found = [base, matrix[task][task], matrix[-1][task]]
        return [share for share in found if share is not None]

    @property
    def _scores(self) -> Matrix:
        return [run.scores for run in self.kept]

    @property
    def _accuracies(self) -> Matrix:
        return [run.accuracies or [None] * len(run.scores) for run in self.kept]


Matrix = Sequence[Sequence[float | None]]
"""`matrix[i][t]` for t <= i: of task t after run i; None where it was not measured."""


def average_of(matrix: Matrix) -> float | None:
    """See `Ledger.average`; the last row is of T."""
    return _mean(matrix[-1]) if matrix else None


def backward_transfer_of(matrix: Matrix) -> float | None:
    """See `Ledger.backward_transfer`."""
    return _mean([_minus(matrix[-1][task], row[task]) for task, row in enumerate(matrix[:-1])])


def forgetting_of(matrix: Matrix) -> list[float | None]:
    """See `Ledger.forgetting`."""
    return [_minus(_best(matrix[task:-1], task), matrix[-1][task]) for task in range(len(matrix) - 1)]


def _best(rows: Matrix, task: int) -> float | None:
    return max((found for row in rows if (found := row[task]) is not None), default=None)


def _minus(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one - other


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return mean_of(known) if known else None


def read_ledger(run: Path) -> Ledger | None:
    """The ledger in a run folder, or None.

    Raises:
        RunFolderError: it cannot be read.
    """
    path = run / LEDGER
    try:
        return Ledger.model_validate(read_json(path, follow_links=False))
    except FileNotFoundError:
        return None
    except (OSError, ValidationError, ValueError) as error:
        raise RunFolderError(
            f"{shown_path(path)} cannot be read: {type(error).__name__}.",
            hint="Restore the file, or start a new run.",
            next=then("delete", run_id=run.name),
            cause=error,
        ) from error


def write_ledger(run: Path, ledger: Ledger) -> None:
    """Replace the ledger in a run folder."""
    write_json(run / LEDGER, ledger.model_dump(mode="json"))


def with_run(ledger: Ledger, run: LedgerRun) -> Ledger:
    """The ledger with one more run."""
    return ledger.model_copy(update={"runs": [*ledger.runs, run]})


def mean_of(scores: Sequence[float]) -> float:
    return math.fsum(scores) / len(scores)
