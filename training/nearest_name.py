"""Which known name is meant by one that is not known."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches

LONGEST_NAME = 100  # characters; no known name is as long


def nearest(name: str, known: Iterable[str], other_names: Mapping[str, str] | None = None) -> str | None:
    """The known name that is meant: nearly the same letters, or the only one with all its words; or None.

    A name that is merely similar (`lr` and `lora_r`), or that says more (`eval_batch_size`), means another.

    Args:
        other_names: names in `known` that stand for another one, which is returned instead.
    """
    if len(name) > LONGEST_NAME:  # the comparison takes the square of the length
        return None
    meant = {other: (other_names or {}).get(other, other) for other in known}
    if name in meant:
        return meant[name]
    words = set(name.split("_"))
    words_of = {other: set(other.split("_")) for other in meant}
    longer = {target for other, target in meant.items() if words <= words_of[other]}
    if len(longer) == 1:
        return longer.pop()
    slips = [other for other in meant if not (words <= words_of[other] or words >= words_of[other])]
    close = get_close_matches(name, slips, n=1, cutoff=0.8)
    return meant[close[0]] if close else None
