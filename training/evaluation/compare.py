"""Two models' measurements on the same rows: scores with intervals, rows that changed, and the verdict."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import log

from ..config.results import Reply, VerdictName
from ..config.scores import PERCENT, MetricScore, RowFlip
from ..data.cleaning.untrusted_text import safe_line
from .measure import Measured
from .paired_difference import LEVEL, Difference, mcnemar, paired_difference
from .pattern import pattern_scores
from .rows import EvaluationRow
from .text_scores import contains, exact_match, token_f1
from .verdict import FEWEST_ROWS, ONLY_FORM, verdict_name
from .wanted import ANSWERS

TEXT_SCORES = {"exact_match": exact_match, "contains": contains, "f1": token_f1}
SHOWN_FLIPS = 3
"""Of each direction."""
SHOWN_CHARACTERS = 400


@dataclass(frozen=True)
class Values:
    """A metric of both models, row by row.

    Args:
        rows: indices of the rows.
        this, against: (rows,) of the one and the other model.
        weights: (rows,) what each row's value is divided by, summed over the rows.
    """

    metric: str
    rows: Sequence[int]
    this: Sequence[float]
    against: Sequence[float]
    weights: Sequence[int]

    def of(self, wanted: set[int]) -> Values:
        """The same for some of the rows."""
        kept = [place for place, row in enumerate(self.rows) if row in wanted]
        this, against = ([values[place] for place in kept] for values in (self.this, self.against))
        weights = [self.weights[place] for place in kept]
        return Values(self.metric, [self.rows[place] for place in kept], this, against, weights)

    @cached_property
    def difference(self) -> Difference | None:
        """None for too few rows."""
        if len(self.rows) < FEWEST_ROWS:
            return None
        return paired_difference(self.against, self.this, self.weights)

    @property
    def right_or_wrong(self) -> bool:
        return self.metric in PERCENT and self.metric != "f1"

    def changed(self, *, won: bool) -> list[int]:
        """The rows that only this model has right, or only the other."""
        pairs = zip(self.rows, self.this, self.against, strict=True)
        return [row for row, this, against in pairs if (this > against if won else this < against)]

    def score(self) -> MetricScore:
        total, difference = sum(self.weights), self.difference
        counts: dict[str, float] = {}
        if self.right_or_wrong:
            won, lost = len(self.changed(won=True)), len(self.changed(won=False))
            counts = {"won": won, "lost": lost, "p": round(mcnemar(won, lost), 6)}
        return MetricScore.model_validate(
            {
                "metric": self.metric,
                "rows": len(self.rows),
                "this": round(sum(self.this) / total, 6),
                "against": round(sum(self.against) / total, 6),
                "low": round(difference.low, 6) if difference else None,
                "high": round(difference.high, 6) if difference else None,
                **counts,
            }
        )


def values_of(
    metrics: Sequence[str],
    rows: Sequence[EvaluationRow],
    this: Measured,
    against: Measured,
    sizes: Sequence[int] | None,
    pattern: str | None,
) -> Iterator[Values]:
    """The metrics that were measured, in their order.

    Args:
        sizes: bytes of each row's trained text, where the two models' tokens differ; else None.
    """
    for metric in metrics:
        if metric == "loss":
            yield _losses(this, against, sizes)
        elif metric == "multiple_choice":
            yield from _choices(rows, this, against)
        else:
            yield _texts(metric, rows, this, against, pattern)


def _losses(this: Measured, against: Measured, sizes: Sequence[int] | None) -> Values:
    if sizes is None:
        tokens = [one.label_tokens for one in against.losses]
        mine, others = ([one.total for one in side.losses] for side in (this, against))
        return Values("loss", range(len(tokens)), mine, others, tokens)
    kept = [row for row, size in enumerate(sizes) if size]
    mine, others = ([side.losses[row].total / log(2) for row in kept] for side in (this, against))
    return Values("bits_per_byte", kept, mine, others, [sizes[row] for row in kept])


def _choices(rows: Sequence[EvaluationRow], this: Measured, against: Measured) -> Iterator[Values]:
    """acc and acc_norm as lm-evaluation-harness defines them: by the sum, and by the sum per character."""
    chosen = [*this.choices]
    for metric, normed in (("multiple_choice", False), ("multiple_choice_norm", True)):

        def right(model: Measured, normed: bool = normed) -> list[float]:
            return [
                float(_choice(model.choices[row], rows[row].choices, normed) == rows[row].right)
                for row in chosen
            ]

        yield Values(metric, chosen, right(this), right(against), [1] * len(chosen))


def _choice(likelihoods: Sequence[float], choices: Sequence[str], normed: bool) -> int:
    """The index of the most likely choice; the first of equal ones."""
    scores = [
        likelihood / len(text) if normed else likelihood
        for likelihood, text in zip(likelihoods, choices, strict=True)
    ]
    return scores.index(max(scores))


def _texts(
    metric: str, rows: Sequence[EvaluationRow], this: Measured, against: Measured, pattern: str | None
) -> Values:
    asked = [*this.replies]
    right = [rows[row].answer for row in asked]
    mine, others = (_scored(metric, side.replies, asked, right, pattern) for side in (this, against))
    return Values(metric, asked, mine, others, [1] * len(asked))


def _scored(
    metric: str,
    replies: Mapping[int, Reply],
    asked: Sequence[int],
    right: Sequence[str],
    pattern: str | None,
) -> list[float]:
    answers = [replies[row].text for row in asked]
    if metric == "regex":
        return pattern_scores(pattern or "", answers, right)
    return [TEXT_SCORES[metric](answer, wanted) for answer, wanted in zip(answers, right, strict=True)]


# --- The verdict. ---
def verdict_of(values: Values, association: Difference | None) -> tuple[VerdictName, str]:
    """The verdict on a metric, and what has to be said besides its numbers."""
    difference = values.difference
    if difference is None:
        return "can't tell", f": fewer than {FEWEST_ROWS} rows show nothing surely."
    if values.metric not in PERCENT:
        name = verdict_name(difference, association)
        only_form = name == "can't tell" and difference.high < 0
        return name, ONLY_FORM if only_form else "."
    name = verdict_name(Difference(-difference.mean, -difference.high, -difference.low))
    if not values.right_or_wrong:
        return name, "."
    won, lost = len(values.changed(won=True)), len(values.changed(won=False))
    sure = mcnemar(won, lost) < 1 - LEVEL
    changed = f"; {won} rows are right only with it and {lost} only without it."
    return name if sure else "can't tell", changed


def sentence(verdict: VerdictName, reason: str, score: MetricScore, rows_in_all: int, against: str) -> str:
    """The verdict in one sentence.

    Args:
        against: name of the other model, within a sentence.
    """
    of_all = f" of {rows_in_all:,}" if score.rows < rows_in_all else ""
    points = " points" if score.metric in PERCENT else ""
    interval = f" ({LEVEL:.0%} interval {score.interval})" if score.low is not None else ""
    names = {"loss": "the loss", "bits_per_byte": "bits per byte"}
    what = names.get(score.metric, score.metric.replace("_", " "))
    return (
        f"{verdict[0].upper()}{verdict[1:]}: {what} on {score.rows:,}{of_all} rows is "
        f"{score.shown(score.this)}, that of {against} {score.shown(score.against)}, a change of "
        f"{score.signed(score.change)}{points}{interval}{reason}"
    )


# --- Rows that changed. ---
def flips(values: Values, rows: Sequence[EvaluationRow], this: Measured, against: Measured) -> list[RowFlip]:
    """A few rows that one model has right and the other wrong, in both directions."""
    return [
        RowFlip(
            metric=values.metric,
            won=won,
            place=rows[row].place,
            untrusted_question=_shown(rows[row].question),
            untrusted_expected=_shown(rows[row].answer),
            untrusted_against=_said(values.metric, row, rows[row], against),
            untrusted_this=_said(values.metric, row, rows[row], this),
        )
        for won in (False, True)
        for row in values.changed(won=won)[:SHOWN_FLIPS]
    ]


def _said(metric: str, row: int, asked: EvaluationRow, model: Measured) -> str:
    if metric in ANSWERS:
        return _shown(model.replies[row].text)
    chosen = _choice(model.choices[row], asked.choices, metric == "multiple_choice_norm")
    return _shown(asked.choices[chosen])


def _shown(text: str) -> str:
    return safe_line(text, SHOWN_CHARACTERS)
