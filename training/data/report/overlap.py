"""Equal and nearly equal rows: within a dataset, and between it and an evaluation dataset (contamination)."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from ...config.specs import DataGroup
from ...events import Report, ShouldStop, never_stop, no_report
from ..cleaning.exact_duplicates import row_hash
from ..cleaning.near_duplicates import NearDuplicates
from ..findings import Findings
from ..formats.messages import Recognised, Text, texts_of
from ..formats.reading import ReadProgress, open_data, read_rows
from ..readers.rows import Place
from ..readers.sources import Permit, permit_all

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SHOWN = 5


class Pair(NamedTuple):
    """A row of the evaluation dataset and one of the training dataset."""

    kind: str
    evaluation: str
    training: str


@dataclass
class Overlap:
    """The rows of an evaluation dataset that a training dataset gives away.

    Args:
        rows, unusable: of the evaluation dataset, those that can be compared and those that cannot.
        equal, similar: rows that are in the training dataset, or nearly so; `similar` includes `equal`.
        same_question: rows whose question is in it, with any answer.
        contaminated: rows of which at least one of these holds.
        pairs: the first ones.
    """

    rows: int = 0
    unusable: int = 0
    equal: int = 0
    similar: int = 0
    same_question: int = 0
    contaminated: int = 0
    pairs: list[Pair] = field(default_factory=list[Pair])

    @property
    def share(self) -> float:
        return self.contaminated / self.rows if self.rows else 0.0


@dataclass
class DuplicateReport:
    """The rows of a dataset.

    Args:
        rows, usable: all of them, and those that can be trained on.
        findings: of the unusable ones.
        equal, similar: rows that repeat an earlier one; `similar` includes `equal`.
        against: compared with the evaluation dataset, if there is one.
    """

    rows: int = 0
    usable: int = 0
    findings: Findings = field(default_factory=Findings)
    equal: int = 0
    similar: int = 0
    against: Overlap | None = None


class _Keys:
    """Hashes and places of the usable rows of a dataset."""

    def __init__(self) -> None:
        self.contents, self.questions = array("Q"), array("Q")
        self.places: list[Place] = []

    def add(self, row: Recognised, place: Place) -> None:
        self.contents.append(row_hash(row))
        self.questions.append(_question_hash(row))
        self.places.append(place)


def duplicate_report(
    data: DataGroup,
    against: DataGroup | None = None,
    *,
    permit: Permit = permit_all,
    report: Report = no_report,
    should_stop: ShouldStop = never_stop,
) -> DuplicateReport:
    """Count the repeated rows of a dataset, and those that it shares with an evaluation dataset.

    Raises:
        DatasetError: a dataset cannot be read; unusable rows are findings.
        TrainingAbortedError: `should_stop` returned True.
    """
    done, compared = DuplicateReport(), DuplicateReport()
    evaluation, training = _Keys(), _Keys()
    with NearDuplicates() as index:
        if against is not None:
            _read(against, evaluation, index, 0, compared, permit, report, should_stop)
        count = len(evaluation.places)
        _read(data, training, index, count, done, permit, report, should_stop)
        clusters = index.clusters(count + len(training.places))
    done.equal, done.similar = _repeated(training, clusters[count:])
    if against is not None:
        done.against = _overlap(evaluation, training, clusters[:count], clusters[count:])
        done.against.unusable = compared.rows - compared.usable
    return done


def _read(
    data: DataGroup,
    into: _Keys,
    index: NearDuplicates,
    first: int,
    counts: DuplicateReport,
    permit: Permit,
    report: Report,
    should_stop: ShouldStop,
) -> None:
    source = open_data(data, permit, should_stop)
    progress = ReadProgress("comparing", "reading the dataset", source.size(), report, should_stop)
    for read in read_rows(source, data.columns, progress):
        counts.rows += 1
        if read.row is None:
            counts.findings.add(read.kind or "parse", read.place, read.reason, read.untrusted)
            continue
        index.add(first + counts.usable, read.row)
        counts.usable += 1
        into.add(read.row, read.place)


def _question_hash(row: Recognised) -> int:
    """Of all that the model is given before its last answer; 0 for plain text."""
    texts = [] if isinstance(row, Text) else texts_of(row)
    asked = [text.strip() for role, text in texts if role == "user"]
    if not asked:
        return 0
    return int.from_bytes(
        hashlib.blake2b("\0".join(asked).encode("utf-8", "replace"), digest_size=8).digest()
    )


def _repeated(keys: _Keys, clusters: NDArray[np.int32]) -> tuple[int, int]:
    """Rows that are equal to an earlier one, and rows that are equal or similar."""
    import numpy as np

    contents = np.array(keys.contents, np.uint64)
    _, first = np.unique(contents, return_index=True)
    _, of_cluster = np.unique(clusters, return_index=True)
    kept = np.zeros(len(contents), bool)
    kept[np.intersect1d(first, of_cluster)] = True
    return len(contents) - len(first), len(contents) - int(kept.sum())


def _overlap(
    evaluation: _Keys, training: _Keys, of_evaluation: NDArray[np.int32], of_training: NDArray[np.int32]
) -> Overlap:
    import numpy as np

    def shared(own: array[int], other: array[int]) -> NDArray[np.bool_]:
        return np.isin(np.array(own, np.uint64), np.array(other, np.uint64))

    equal = shared(evaluation.contents, training.contents)
    similar = np.isin(of_evaluation, of_training) | equal
    asked = shared(evaluation.questions, training.questions) & (
        np.array(evaluation.questions, np.uint64) != 0
    )
    found = Overlap(
        rows=len(equal),
        equal=int(equal.sum()),
        similar=int(similar.sum()),
        same_question=int(asked.sum()),
        contaminated=int((similar | asked).sum()),
    )
    shown: list[int] = np.flatnonzero(similar | asked)[:SHOWN].tolist()
    for number in shown:
        kind = "equal" if equal[number] else "similar" if similar[number] else "same question"
        keys: dict[str, tuple[Sequence[int], Sequence[int]]] = {
            "equal": (evaluation.contents, training.contents),
            "similar": (of_evaluation.tolist(), of_training.tolist()),
            "same question": (evaluation.questions, training.questions),
        }
        own, other = keys[kind]
        at = other.index(own[number])
        found.pairs.append(Pair(kind, str(evaluation.places[number]), str(training.places[at])))
    return found
