"""Selects the rows to train on and the held-out rows, and records why others are dropped, in one pass.

Memory: 26 bytes per row (content hash, index of its file, reason, cluster).
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...config.specs import DataGroup
from ...errors import DatasetError
from ..cleaning.exact_duplicates import first_of_each, keyed, row_hash
from ..cleaning.near_duplicates import NearDuplicates
from ..findings import KINDS, LEFT_OUT_ONLY, Findings, refuse_bad_rows
from ..formats.reading import Read
from .held_out import held_out, note_on_held_out

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

REASONS = ("used", *KINDS, *LEFT_OUT_ONLY)
"""The reason of a row is an index into this; 0: the row is used."""


@dataclass
class Selection:
    """The decision for each row.

    Args:
        reasons: (rows,) index into `REASONS`; 0 for used rows.
        held_out: (rows,) whether a used row is held out.
        hashes: (rows,) content hash; 0 for unusable rows.
        findings: of unusable and dropped rows.
        notes: for the user, e.g. why no rows are held out.
    """

    reasons: NDArray[np.uint8]
    held_out: NDArray[np.bool_]
    hashes: NDArray[np.uint64]
    findings: Findings
    notes: list[str]

    def reason(self, number: int) -> str | None:
        """Why a row is dropped; None if it is used."""
        index = int(self.reasons[number]) if number < len(self.reasons) else REASONS.index("parse")
        return REASONS[index] if index else None


def select(rows: Iterable[Read], data: DataGroup, seed: int, trained: int | None = None) -> Selection:
    """Reads every row once and selects.

    Args:
        rows: after the transforms.
        trained: the rows of the source's parts after so many are the held-out ones; None: they are chosen.

    Raises:
        DatasetError: rows are unusable and `on_bad_rows` is "refuse", or no row is left.
    """
    import numpy as np

    survey = Survey()
    with NearDuplicates() as index:
        survey.read(rows, index)
        bad = len(survey.reasons) - survey.reasons.count(0)
        errors = sum(found.count for found in survey.findings.errors())
        refuse_bad_rows(survey.findings, len(survey.reasons), len(survey.reasons) - errors, data.on_bad_rows)
        reasons = np.frombuffer(survey.reasons, np.uint8).copy()
        hashes, parts = np.array(survey.hashes, np.uint64), np.array(survey.parts, np.uint32)
        # The split needs clusters even without `dedupe`: near duplicates stay on one side.
        clusters = index.clusters(len(reasons)) if bad < len(reasons) else np.arange(len(reasons))
    groups = hashes[clusters]
    # Duplicates before the sample, so that the sample has `samples` rows; the split last, of used rows only.
    _drop_duplicates(data.dedupe, reasons, hashes, groups)
    validation = np.zeros(len(parts), bool) if trained is None else parts >= trained
    _sample(data.samples, reasons, hashes, seed, validation)
    used = reasons == 0
    if trained is not None:
        notes = _notes_on(hashes[used & validation], hashes[used & ~validation])
        return Selection(reasons, used & validation, hashes, survey.findings, notes)
    chosen = np.zeros(len(reasons), bool)
    chosen[used] = held_out(groups[used], parts[used], data.held_out, seed)
    note = note_on_held_out(int(used.sum()), data.held_out)
    return Selection(reasons, chosen, hashes, survey.findings, [note] if note else [])


def _notes_on(validation: NDArray[np.uint64], trained: NDArray[np.uint64]) -> list[str]:
    """What is to be said of the validation dataset's rows.

    Args:
        validation, trained: the hashes of the rows.
    """
    import numpy as np

    if not len(validation):
        raise DatasetError(
            "No row of the validation dataset can be used.", hint="Give another one, or leave validation out."
        )
    both = int(np.isin(validation, trained).sum())
    if not both:
        return []
    told = "is also trained on" if both == 1 else "are also trained on"
    return [f"{both} of {len(validation)} validation rows {told}: there the held-out loss shows memory only."]


class Survey:
    """The columns that the selection needs, collected row by row."""

    def __init__(self) -> None:
        self.reasons = bytearray()
        self.hashes = array("Q")
        self.parts = array("I")
        self.findings = Findings()

    def read(self, rows: Iterable[Read], index: NearDuplicates) -> None:
        """Adds all rows, usable ones also to the index."""
        for read in rows:
            self.parts.append(read.part)
            if read.row is None:
                self._drop(read, read.kind or "parse")
                continue
            self.reasons.append(0)
            self.hashes.append(row_hash(read.row))
            index.add(read.number, read.row)

    def _drop(self, read: Read, kind: str) -> None:
        self.reasons.append(REASONS.index(kind))
        self.hashes.append(0)
        self.findings.add(kind, read.place, read.reason)


def _drop_duplicates(
    dedupe: str, reasons: NDArray[np.uint8], hashes: NDArray[np.uint64], groups: NDArray[np.uint64]
) -> None:
    """Keeps the first of equal rows and, with "near", the first row of each cluster."""
    if dedupe == "off":
        return
    _keep_first(reasons, hashes, "exact_duplicate")
    if dedupe == "near":
        _keep_first(reasons, groups, "near_duplicate")


def _keep_first(reasons: NDArray[np.uint8], keys: NDArray[np.uint64], kind: str) -> None:
    import numpy as np

    used = np.flatnonzero(reasons == 0)
    repeated = first_of_each(keys[used]) != np.arange(len(used))
    reasons[used[repeated]] = REASONS.index(kind)


def _sample(
    count: int | None,
    reasons: NDArray[np.uint8],
    hashes: NDArray[np.uint64],
    seed: int,
    validation: NDArray[np.bool_],
) -> None:
    """Keeps `count` of the rows to train on."""
    import numpy as np

    used = np.flatnonzero((reasons == 0) & ~validation)
    if count is None or count >= len(used):
        return
    # By content and not by position, so that appended rows hardly change the sample.
    order = np.argsort(keyed(hashes[used], seed, "samples"), kind="stable")
    reasons[used[order[count:]]] = REASONS.index("not_sampled")
