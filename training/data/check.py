"""Looks at every row without a tokenizer, before anything heavy is imported or any model is loaded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..config import DataGroup
from ..errors import DatasetError
from .findings import BASIC, KINDS, Finding, Findings, remedy, rows_of
from .reading import Progress, Report, ShouldStop, open_data, read_rows
from .validity import oddities


@dataclass
class Checked:
    """What a source holds.

    Args:
        rows: all rows, good or not.
        usable: the rows that can be trained on.
        formats: usable rows by format.
    """

    rows: int = 0
    usable: int = 0
    formats: Counter[str] = field(default_factory=Counter[str])
    findings: Findings = field(default_factory=Findings)
    notes: list[str] = field(default_factory=list[str])

    def raise_if_unusable(self, on_bad_rows: str = "refuse") -> None:
        """Raises the error of the most frequent trouble.

        Raises:
            DatasetError: a row is bad and `on_bad_rows` is "refuse", or no row is usable.
        """
        refuse_bad_rows(self.findings, self.rows, self.usable, on_bad_rows)

    def as_dict(self) -> dict[str, Any]:
        return {
            "rows": self.rows,
            "usable": self.usable,
            "formats": dict(self.formats),
            "findings": [found.as_dict(self.usable) for found in self.findings.sorted()],
            "notes": self.notes,
        }


def check(
    data: DataGroup,
    *,
    permit: Callable[[Path], object] = lambda path: None,
    report: Report = lambda message, fraction: None,
    should_stop: ShouldStop = lambda: False,
) -> Checked:
    """Reads the whole source once and collects what is wrong with it.

    Raises:
        DatasetError: the source cannot be read at all; bad rows do not raise here (`raise_if_unusable`).
        TrainingAbortedError: `should_stop` said so.
    """
    source = open_data(data, permit)
    progress = Progress("checking the dataset", source.size(), report, should_stop)
    checked = Checked(notes=list(source.notes))
    for read in read_rows(source, data.columns, progress):
        checked.rows += 1
        if read.row is None:
            checked.findings.add(read.kind or "parse", read.place, read.reason)
            continue
        checked.usable += 1
        checked.formats[read.row.format] += 1
        for kind in oddities(read.row):
            checked.findings.add(kind, read.place)
    return checked


def refuse_bad_rows(findings: Findings, rows: int, usable: int, on_bad_rows: str) -> None:
    """Raises for bad rows that the user has not said to skip, and for a source of which nothing is left."""
    if rows == 0:
        raise DatasetError("The dataset has no rows.", hint="Give a file with at least one row.")
    bad = findings.errors()
    if bad and on_bad_rows == "refuse":
        count = sum(found.count for found in bad)
        raise _refusal(bad, f"{count:,} of {rows_of(rows)} cannot be used", usable)
    if usable == 0:
        left_out = sorted(findings.sorted(), key=lambda found: -found.count)
        raise _refusal(left_out, f"None of {rows_of(rows)} is left to train on", usable)


def _refusal(findings: list[Finding], message: str, usable: int) -> DatasetError:
    sentences = "; ".join(found.sentence() for found in findings[:3])
    more = f"; and {len(findings) - 3} more kinds of trouble" if len(findings) > 3 else ""
    error = KINDS[findings[0].kind].error if findings[0].severity == "error" else DatasetError
    # Rows that `quality` left out are not had back by asking for it.
    hint = remedy(findings, usable, "call again with").replace(BASIC, 'quality="off"')
    return error(f"{message}: {sentences}{more}.", hint=f"{hint}.")
