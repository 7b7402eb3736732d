"""Splits a dataset into two files: rows to train on, and held-out rows. Duplicates stay on one side."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from ...config.specs import DataGroup
from ...errors import DatasetError
from ...events import Report, ShouldStop, never_stop, no_report
from ..findings import Finding
from ..formats.reading import ReadProgress, open_data, raw_rows, read_rows
from ..readers.rows import RawRow
from ..readers.sources import Permit, permit_all
from ..split.selection import select
from .jsonl_file import new_jsonl, require_new


@dataclass
class SplitFiles:
    """Rows of the dataset and of each file, and why others are in neither."""

    rows: int = 0
    train: int = 0
    held_out: int = 0
    left_out: list[Finding] = field(default_factory=list[Finding])


def split_files(
    data: DataGroup,
    train: Path,
    held_out: Path,
    *,
    seed: int = 42,
    permit: Permit = permit_all,
    report: Report = no_report,
    should_stop: ShouldStop = never_stop,
) -> SplitFiles:
    """Write the rows of a dataset to two new files as they are, as JSON Lines.

    Args:
        data: with `held_out`, `dedupe` and `samples` as in a training, which holds out the same rows.

    Raises:
        InputError: a file exists.
        DatasetError: the dataset cannot be read, a row is unusable and `on_bad_rows` is "refuse", or no row
            would be held out.
        TrainingAbortedError: `should_stop` returned True.
    """
    require_new(train, held_out)
    source = open_data(data, permit, should_stop)
    stamp = source.stamp()

    def progress(message: str) -> ReadProgress:
        return ReadProgress("splitting", message, source.size(), report, should_stop)

    chosen = select(read_rows(source, data.columns, progress("reading the dataset")), data, seed)
    if not chosen.held_out.any():
        raise DatasetError(
            "No row would be held out.", hint="Set held_out to a larger share, e.g. held_out=0.1."
        )
    done = SplitFiles(len(chosen.reasons), left_out=chosen.findings.sorted())
    with ExitStack() as files:
        write_train, write_held_out = (files.enter_context(new_jsonl(path)) for path in (train, held_out))
        for number, _, item in raw_rows(source, progress("writing the files")):
            if chosen.reason(number) is not None or not isinstance(item, RawRow):
                continue
            is_held_out = bool(chosen.held_out[number])
            (write_held_out if is_held_out else write_train)(item.value)
            done.held_out += is_held_out
            done.train += not is_held_out
        source.require_unchanged(stamp)
    return done
