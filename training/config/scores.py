"""The scores of two models on the same rows."""

from __future__ import annotations

from math import exp

from pydantic import BaseModel, ConfigDict


class ScoreRecord(BaseModel):
    """A part of an evaluation. Unknown fields, e.g. of a newer version, are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)


PERCENT = frozenset({"exact_match", "contains", "f1", "regex", "multiple_choice", "multiple_choice_norm"})
"""Metrics from 0 to 1, higher is better; of the others, lower is."""


class MetricScore(ScoreRecord):
    """A metric of two models on the same rows.

    Args:
        metric: `loss` is a mean per label token in nats; `bits_per_byte` takes its place where the models'
            tokens differ; all others are means of 0 to 1.
        rows: number of rows that it is over.
        this, against: of the one and of the other model.
        low, high: 99 % interval of this - against; None for fewer than 8 rows.
        won, lost: rows that are right with this model only, and with the other only.
        p: of McNemar's exact test of `won` and `lost`.
    """

    metric: str
    rows: int
    this: float
    against: float
    low: float | None = None
    high: float | None = None
    won: int | None = None
    lost: int | None = None
    p: float | None = None

    @property
    def change(self) -> float:
        return self.this - self.against

    @property
    def interval(self) -> str:
        """`+38.1 to +65.2`, or why there is none."""
        if self.low is None or self.high is None:
            return "too few rows for an interval"
        return f"{self.signed(self.low)} to {self.signed(self.high)}"

    def shown(self, value: float) -> str:
        return f"{value:.1%}" if self.metric in PERCENT else f"{value:.4g}"

    def signed(self, value: float) -> str:
        return f"{100 * value:+.1f}" if self.metric in PERCENT else f"{value:+.3g}"

    @property
    def line(self) -> str:
        """The score in one line: against → this."""
        points = " points" if self.metric in PERCENT else ""
        parts = [
            f"{self.metric} {self.shown(self.against)} → {self.shown(self.this)}",
            f"{self.signed(self.change)}{points} ({self.interval})",
        ]
        if self.metric == "loss":
            parts.append(f"perplexity {perplexity(self.against)} → {perplexity(self.this)}")
        if self.won is not None:
            parts.append(f"{self.won} won, {self.lost} lost")
        return ", ".join([*parts, f"{self.rows:,} rows"])


def perplexity(loss: float) -> str:
    return f"{exp(loss):,.3g}" if loss < 50 else "above 10^21"


class TaskScores(ScoreRecord):
    """The scores on the rows of one task of a multi-run."""

    task: str
    scores: list[MetricScore] = []


class RowFlip(ScoreRecord):
    """A row that one model has right and the other wrong; its texts are untrusted.

    Args:
        won: whether it is this model that has it right.
        place: file and line.
    """

    metric: str
    won: bool
    place: str
    untrusted_question: str
    untrusted_expected: str
    untrusted_against: str
    untrusted_this: str
