"""Checks every row without a tokenizer: before heavy libraries are imported and a model is loaded."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from ..config.specs import DataGroup
from ..events import Report, ShouldStop, never_stop, no_report
from .cleaning.private_data import secrets_in
from .findings import Findings, refuse_bad_rows
from .formats.messages import texts_of
from .formats.reading import ReadProgress, open_data, read_rows
from .formats.validity import turn_findings, unread_findings
from .readers.sources import Permit, permit_all

SEARCHED = 100_000
"""Characters of a row that are searched for secrets; an inspection searches all of it."""


@dataclass
class Checked:
    """The result of `check`.

    Args:
        rows: number of all rows.
        usable: number of rows that can be trained on.
        formats: usable rows by format.
        notes: for the user.
    """

    rows: int = 0
    usable: int = 0
    formats: Counter[str] = field(default_factory=Counter[str])
    findings: Findings = field(default_factory=Findings)
    notes: list[str] = field(default_factory=list[str])

    def raise_if_unusable(self, on_bad_rows: str = "refuse") -> None:
        """Raises the error of the most frequent problem.

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
    permit: Permit = permit_all,
    report: Report = no_report,
    should_stop: ShouldStop = never_stop,
) -> Checked:
    """Reads the whole source once and collects its findings.

    Raises:
        DatasetError: the source cannot be read. Bad rows are findings (see `raise_if_unusable`).
        TrainingAbortedError: `should_stop` returned True.
    """
    source = open_data(data, permit, should_stop)
    progress = ReadProgress("checking", "checking the dataset", source.size(), report, should_stop)
    checked = Checked(notes=list(source.notes))
    for read in read_rows(source, data.columns, progress):
        checked.rows += 1
        if read.row is None:
            checked.findings.add(read.kind or "parse", read.place, read.reason)
            continue
        checked.usable += 1
        checked.formats[read.row.format] += 1
        for kind in turn_findings(read.row):
            checked.findings.add(kind, read.place)
        for kind, keys in unread_findings(read.row):
            checked.findings.add(kind, read.place, keys)
        text = "\n".join(text for _, text in texts_of(read.row))
        if secrets := secrets_in(text[:SEARCHED]):
            checked.findings.add("secret", read.place, ", ".join(sorted(secrets)))
    return checked
