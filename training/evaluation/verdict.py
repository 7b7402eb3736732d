"""From measured losses to a verdict in one sentence."""

from __future__ import annotations

from typing import NamedTuple

from ..config.results import GeneralProbe, Verdict, VerdictName, WorseRow
from ..config.scores import perplexity
from .paired_difference import LEVEL, Difference

FEWEST_ROWS = 8
"""Of fewer rows nothing is said: of so few, all often change in the same direction by chance."""
SMALL = 0.01
"""A difference within this share of the loss is no effect."""
FORGOTTEN = 0.1
"""The lower bound of the rise, as a share of the loss, from which it is called forgetting."""
FAR, AT_LEAST = 2.0, 0.5
"""Of rows learnt by heart: the held-out loss as a multiple of the training loss, and in nats above it."""


class Measured(NamedTuple):
    """What was measured. Losses are means per label token, in nats.

    Args:
        rows: number of rows that were measured, of `held_out` ones.
        difference: of the tuned model's loss to the base model's.
        association: how much the tuned model's loss rises if an answer follows another row's question;
            None for texts without questions, or if all answers are the same.
    """

    rows: int
    held_out: int
    loss_before: float
    loss_after: float
    difference: Difference
    association: Difference | None
    general: GeneralProbe | None


def judged(measured: Measured, worse_rows: list[WorseRow], seconds: float) -> Verdict:
    """The verdict, with the numbers that it is based on."""
    name, reason = _judged(measured)
    difference, association = measured.difference, measured.association
    return Verdict(
        verdict=name,
        sentence=f"{name[0].upper()}{name[1:]}: {_numbers(measured)}{reason}",
        rows=measured.rows,
        held_out=measured.held_out,
        loss_before=round(measured.loss_before, 4),
        loss_after=round(measured.loss_after, 4),
        low=round(difference.low, 4),
        high=round(difference.high, 4),
        level=LEVEL,
        association=round(association.mean, 4) if association else None,
        association_low=round(association.low, 4) if association else None,
        worse_rows=worse_rows,
        general=measured.general,
        seconds=seconds,
    )


def verdict_name(difference: Difference, association: Difference | None = None) -> VerdictName:
    """Better or worse where the loss surely differs, and an answer surely depends on its question."""
    if difference.low > 0:
        return "worse"
    if difference.high >= 0 or (association is not None and association.low <= 0):
        return "can't tell"
    return "better"


ONLY_FORM = (
    ", but an answer is as likely after another row's question: "
    "the model learnt what answers look like, not which one belongs to which question."
)


def _judged(measured: Measured) -> tuple[VerdictName, str]:
    """The verdict, and what has to be said besides the numbers."""
    name = verdict_name(measured.difference, measured.association)
    if name != "can't tell":
        return name, "."
    if measured.difference.high < 0:
        return name, ONLY_FORM
    if abs(measured.difference.mean) <= SMALL * measured.loss_before:
        return name, ": the training had hardly any effect on them."
    return name, "."


def _numbers(measured: Measured) -> str:
    before, after = measured.loss_before, measured.loss_after
    rows = f"{measured.rows:,} held-out rows"
    if measured.rows < measured.held_out:
        rows = f"{measured.rows:,} of {measured.held_out:,} held-out rows"
    difference = measured.difference
    return (
        f"the loss on {rows} went from {before:.3g} to {after:.3g} (perplexity {perplexity(before)} to "
        f"{perplexity(after)}), a change of {difference.mean:+.3g} ({LEVEL:.0%} interval "
        f"{difference.low:+.3g} to {difference.high:+.3g})"
    )


def warnings_of(verdict: Verdict, train_loss: float | None) -> list[str]:
    """What a person should know besides: harm, learning by heart, forgetting.

    Args:
        train_loss: mean per label token over the last steps.
    """
    found: list[str] = []
    if verdict.verdict == "worse":
        found.append(increased("held-out", verdict.loss_before, verdict.loss_after))
    if train_loss is not None and _learnt_by_heart(train_loss, verdict.loss_after):
        found.append(
            f"The loss on trained rows, {train_loss:.3g}, is far below the one on held-out rows, "
            f"{verdict.loss_after:.3g}: it has learnt rows by heart. More rows or fewer steps may help."
        )
    general = verdict.general
    if general is not None and general.low > FORGOTTEN * general.loss_before:
        found.append(
            f"On {general.questions} general questions the loss rose from {general.loss_before:.3g} to "
            f"{general.loss_after:.3g}: the model has forgotten some of what it knew. A lower learning_rate, "
            "fewer steps, or some general rows in the dataset may help."
        )
    return found


def increased(what: str, before: float, after: float) -> str:
    """The warning of a model that became worse.

    Args:
        what: "held-out" or "training".
    """
    return (
        f"The {what} loss increased from {before:.4g} to {after:.4g}: the model is worse than before. "
        "A lower learning_rate or fewer steps may help."
    )


def _learnt_by_heart(train_loss: float, held_out_loss: float) -> bool:
    return held_out_loss > max(FAR * train_loss, train_loss + AT_LEAST)
