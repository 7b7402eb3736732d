"""Converts a dataset of any known format to chat messages, one row per line."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...config.specs import DataGroup
from ...events import Report, ShouldStop, never_stop, no_report
from ..cleaning.unusable_rows import UnusableRows
from ..findings import Finding, Findings, refuse_bad_rows
from ..formats.messages import Preference, Recognised, Text, as_messages
from ..formats.reading import ReadProgress, open_data, read_rows
from ..readers.sources import Permit, permit_all
from .jsonl_file import new_jsonl, require_new


@dataclass
class Converted:
    """What was written.

    Args:
        rows, written: of the dataset, and of the new file.
        texts: rows of plain text, which stay so.
        left_out: unusable rows.
        unread: keys of rows that are not part of the conversation, and are not written.
    """

    rows: int = 0
    written: int = 0
    texts: int = 0
    left_out: list[Finding] = field(default_factory=list[Finding])
    unread: set[str] = field(default_factory=set[str])


def convert(
    data: DataGroup,
    target: Path,
    *,
    permit: Permit = permit_all,
    report: Report = no_report,
    should_stop: ShouldStop = never_stop,
) -> Converted:
    """Write the rows of a dataset as chat messages to `target`, which must not exist.

    Raises:
        InputError: `target` exists.
        DatasetError: the dataset cannot be read, or a row is unusable and `on_bad_rows` is "refuse".
        TrainingAbortedError: `should_stop` returned True.
    """
    require_new(target)
    source = open_data(data, permit, should_stop)
    progress = ReadProgress("converting", "converting the dataset", source.size(), report, should_stop)
    done, findings = Converted(), Findings()
    unusable = UnusableRows(findings)
    with new_jsonl(target) as write:
        for read in read_rows(source, data.columns, progress):
            done.rows += 1
            if read.row is None:
                unusable.add(read)
                continue
            done.written += 1
            done.texts += isinstance(read.row, Text)
            done.unread |= set(getattr(read.row, "unread", ()))
            write(chat_row(read.row))
        unusable.suggest()
        refuse_bad_rows(findings, done.rows, done.written, data.on_bad_rows)
    done.left_out = findings.sorted()
    return done


def chat_row(row: Recognised) -> dict[str, Any]:
    """The row as `messages`, with `tools` and `weight` where it has them; plain text stays `text`."""
    if isinstance(row, Text):
        return {"text": row.text}
    if isinstance(row, Preference):
        pairs = {"prompt": row.prompt, "chosen": row.chosen, "rejected": row.rejected, "label": row.label}
        return {name: value for name, value in pairs.items() if value is not None}
    untrained = getattr(row, "untrained", frozenset[int]())
    messages = [
        {**message, "weight": 0} if index in untrained else message
        for index, message in enumerate(as_messages(row))
    ]
    tools = getattr(row, "tools", None)
    return {"messages": messages, **({"tools": tools} if tools else {})}
