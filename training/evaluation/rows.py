"""The rows of an evaluation: read once, and chosen by their content, so that each model gets the same."""

from __future__ import annotations

import heapq
from collections.abc import Container, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..config.specs import DataGroup
from ..data.cleaning.exact_duplicates import row_hash
from ..data.cleaning.transforms import Transforms
from ..data.cleaning.unusable_rows import UnusableRows
from ..data.findings import Findings, refuse_bad_rows
from ..data.formats.choices import ChoiceRow, choice_row
from ..data.formats.messages import Completion, Conversation, Recognised, Text
from ..data.formats.reading import Read, ReadProgress, open_data, raw_rows, read_row
from ..data.formats.validity import require_shallow, unread_findings
from ..data.readers.rows import BadRow, RowError
from ..data.readers.sources import Permit
from ..events import Report, ShouldStop

DEFAULT_ROWS = 100
"""Rows that are measured if `samples` does not say how many."""


@dataclass(frozen=True)
class EvaluationRow:
    """A row on which models are compared.

    Args:
        hash: of its content, as it is trained on.
        choices: the answers of a multiple-choice question, and which is right.
        task: the task of a multi-run that it belongs to.
    """

    place: str
    row: Recognised
    hash: str
    choices: tuple[str, ...] = ()
    right: int = 0
    task: str = ""

    @property
    def answer(self) -> str:
        """The last answer of the row; empty for a text, or where it is no text."""
        if isinstance(self.row, Completion):
            return self.row.completion
        if isinstance(self.row, Conversation) and (turn := _last_turn(self.row)) is not None:
            return self.row.messages[turn]["content"]
        return ""

    @property
    def question(self) -> str:
        """What precedes the last answer, without earlier turns; the beginning of a text."""
        match self.row:
            case Completion():
                return self.row.prompt
            case Text():
                return self.row.text
            case Conversation():
                turn = _last_turn(self.row) or 0
                return self.row.messages[max(0, turn - 1)]["content"]
            case _:
                return ""

    def texts(self, train_on: str) -> str:
        """The text that carries loss."""
        match self.row:
            case Text():
                return self.row.text
            case Completion():
                return f"{self.row.prompt}{self.row.completion}" if train_on == "all" else self.row.completion
            case Conversation() if train_on == "last":
                return self.answer
            case Conversation():
                turns = range(len(self.row.messages)) if train_on == "all" else _turns(self.row)
                return "".join(self.row.messages[turn]["content"] for turn in turns)
            case _:
                return ""


def _turns(row: Conversation) -> list[int]:
    """The indices of the answers."""
    return [
        index
        for index, message in enumerate(row.messages)
        if message["role"] == "assistant" and index not in row.untrained
    ]


def _last_turn(row: Conversation) -> int | None:
    return next(reversed(_turns(row)), None)


@dataclass
class Rows:
    """The chosen rows, of `usable` ones, and what was found in all of them.

    Args:
        notes: of the source, e.g. settings that mean nothing for it.
    """

    chosen: list[EvaluationRow] = field(default_factory=list[EvaluationRow])
    read: int = 0
    usable: int = 0
    findings: Findings = field(default_factory=Findings)
    notes: tuple[str, ...] = ()


def evaluation_rows(
    data: DataGroup,
    transforms: Transforms,
    only: Container[str] | None,
    permit: Permit,
    report: Report,
    should_stop: ShouldStop,
    seed: int,
) -> Rows:
    """The rows of a dataset, at most `samples`, drawn by their content and the seed.

    Args:
        only: the hashes of the rows that are wanted, each once where `dedupe` left out equal ones; None: all.

    Raises:
        DatasetError: the dataset cannot be read, or rows are bad and `on_bad_rows` is "refuse".
        TrainingAbortedError: `should_stop` returned True.
    """
    source = open_data(data, permit, should_stop)
    progress = ReadProgress("checking", "reading the dataset", source.size(), report, should_stop)
    found = Rows(notes=source.notes)
    unusable = UnusableRows(found.findings)
    drawn = _Drawn(data.samples or DEFAULT_ROWS, seed)
    taken: set[str] = set()
    for number, part, item in raw_rows(source, progress):
        found.read += 1
        read, choices = _read(number, part, item, data.columns)
        kept = _transformed(read, transforms)
        if kept.row is None:
            unusable.add(kept)
            continue
        digest = f"{row_hash(kept.row):016x}"
        if only is not None:
            if digest not in only or digest in taken:
                continue
            if data.dedupe != "off":
                taken.add(digest)
        found.usable += 1
        for kind, keys in unread_findings(kept.row):
            found.findings.add(kind, kept.place, keys)
        row = EvaluationRow(str(kept.place), kept.row, digest)
        if choices is not None:
            row = replace(row, choices=choices.choices, right=choices.right)
        drawn.add(number, row)
    unusable.suggest()
    if only is None:
        refuse_bad_rows(found.findings, found.read, found.usable, data.on_bad_rows)
    found.chosen = drawn.in_order()
    return found


def _read(
    number: int, part: int, item: Any, columns: Mapping[str, str] | None
) -> tuple[Read, ChoiceRow | None]:
    if isinstance(item, BadRow):
        return read_row(number, part, item, columns), None
    try:
        require_shallow(item.value)
        choices = choice_row(item.value, columns)
    except RowError as error:
        return Read(number, part, item.place, None, error.kind, error.reason), None
    if choices is None:
        return read_row(number, part, item, columns), None
    return Read(number, part, item.place, choices.row), choices


def _transformed(read: Read, transforms: Transforms) -> Read:
    reason = read.row and transforms.reason_against(read.row)
    if read.row is None or reason:
        return read.left_out(reason) if reason else read
    return read._replace(row=transforms.apply(read.row))


class _Drawn:
    """At most `most` rows: those with the smallest keyed hashes, so that more rows hardly change the draw."""

    def __init__(self, most: int, seed: int) -> None:
        self._most, self._seed = most, seed
        self._heap: list[tuple[int, int, EvaluationRow]] = []

    def add(self, number: int, row: EvaluationRow) -> None:
        entry = (-_key(row.hash, self._seed), -number, row)
        if len(self._heap) < self._most:
            heapq.heappush(self._heap, entry)
        elif entry[:2] > self._heap[0][:2]:
            heapq.heapreplace(self._heap, entry)

    def in_order(self) -> list[EvaluationRow]:
        return [row for _, _, row in sorted(self._heap, key=lambda entry: -entry[1])]


def _key(digest: str, seed: int) -> int:
    import numpy as np

    from ..data.cleaning.exact_duplicates import keyed

    return int(keyed(np.array([int(digest, 16)], np.uint64), seed, "samples")[0])
