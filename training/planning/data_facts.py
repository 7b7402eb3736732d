"""How many examples a dataset has, and how long they are: as an inspection has found, or by its size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from ..config.results import InspectResult
from ..config.specs import DataGroup

SAMPLE = 512
"""Lengths that stand for those of a dataset."""
BYTES_PER_TOKEN = 4.0
USUAL_TOKENS = 400
"""Of an example, where nothing is known but the size of the files."""


@dataclass(frozen=True)
class DataFacts:
    """The examples of a training.

    Args:
        examples: that are trained on; None: not known.
        held_out: that are evaluated.
        lengths: in tokens, of all examples or of a sample; None: not known.
        trained_share: of the tokens, those with a loss; None: not known.
        how: where this comes from, as part of a sentence.
        longest: tokens of the longest example that was counted; None: none was.
    """

    examples: int | None
    held_out: int
    lengths: Sequence[int] | None
    trained_share: float | None
    how: str
    longest: int | None = None

    @property
    def tokens(self) -> float | None:
        """Of an epoch."""
        if self.examples is None or not self.lengths:
            return None
        return self.examples * sum(self.lengths) / len(self.lengths)


NOTHING = DataFacts(None, 0, None, None, "no dataset is given")


def facts_of(found: InspectResult, data: DataGroup) -> DataFacts:
    """What an inspection says of the examples that a training with these settings takes."""
    left = found.usable - _repeats(found, data)
    usable = min(left, data.samples or left)
    held_out = round(found.held_out * usable / max(1, found.usable))
    examples = max(0, usable - held_out)
    if not found.tokens or not found.tokens.get("total"):
        return _by_bytes(found.size_bytes, examples, held_out)
    lengths = lengths_like(found.tokens, found.usable, data.max_seq_length)
    counted = found.tokens.get("estimated_from_rows")
    how = f"tokens of {counted:,} of its rows, with the model's tokenizer" if counted else "all of its tokens"
    trained_share = found.tokens.get("trained_share") or None
    return DataFacts(examples, held_out, lengths, trained_share, how, longest=max(lengths))


def _repeats(found: InspectResult, data: DataGroup) -> int:
    """The rows that `dedupe` leaves out; they are found, and counted as usable, without it too."""
    exact, near = ["exact_duplicate"], ["exact_duplicate", "near_duplicate"]
    kinds = {"off": [], "exact": exact, "near": near}[data.dedupe]
    return sum(finding.count for finding in found.findings if finding.kind in kinds)


def _by_bytes(size: int, examples: int, held_out: int) -> DataFacts:
    """Without a tokenizer: so many bytes are a token."""
    mean = max(1, round(size / BYTES_PER_TOKEN / max(1, examples + held_out)))
    how = f"an estimate of {BYTES_PER_TOKEN:g} bytes a token, since the model's tokenizer is not here"
    return DataFacts(examples, held_out, [mean] * 2, None, how)


def by_size(size: int, how: str) -> DataFacts:
    """Of a dataset that has not been read.

    Args:
        how: why it has not.
    """
    examples = max(1, round(size / BYTES_PER_TOKEN / USUAL_TOKENS))
    return DataFacts(examples, 0, [USUAL_TOKENS], None, f"a guess from the size of its files, since {how}")


def lengths_like(tokens: dict[str, Any], rows: int, limit: int) -> list[int]:
    """A sample of lengths with these quantiles, and with this mean before they are cut to `limit`.

    Between the quantiles lengths grow evenly by factors; the shorter half is bent to give the mean.
    """
    known = [(0.5, tokens["median"]), (0.9, tokens["p90"]), (0.99, tokens["p99"]), (1.0, tokens["max"])]
    count = min(SAMPLE, max(1, rows))
    places = [(i + 1) / count for i in range(count)]
    upper = [_between(known, place) for place in places if place > 0.5]
    lower = [place for place in places if place <= 0.5]
    wanted = tokens["total"] / max(1, rows) * count - sum(upper)
    half = min(max(1.0, wanted / len(lower)), tokens["median"]) if lower else 1.0
    # The mean of median · u^power, for u from 0 to 1, is median / (power + 1).
    power = tokens["median"] / half - 1
    sample = [tokens["median"] * (2 * place) ** power for place in lower] + upper
    return [max(1, min(round(length), limit)) for length in sample]


def _between(known: list[tuple[float, int]], place: float) -> float:
    for (low, shorter), (high, longer) in pairwise(known):
        if place <= high:
            return shorter * (longer / shorter) ** ((place - low) / (high - low))
    return float(known[-1][1])
