"""What can be wrong with data: each kind once, with its severity, its repair and its error."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from ..errors import DatasetError, DatasetFormatError, DatasetParseError, DatasetValidationError
from .readers.decoding import TO_UTF_8
from .readers.rows import Place

Severity = Literal["error", "warning", "note"]
SHOWN_PLACES = 5
MANY_TIMES = 10
"""`columns` is worth it where it repairs so many times the rows that it loses."""


class FindingKind(NamedTuple):
    """A kind of trouble.

    Args:
        severity: an "error" makes a row unusable and, unless the user says otherwise, the whole dataset.
        meaning: follows a count: "3 rows …".
        repair: the argument that repairs it, as it is typed, or None.
        error: raised for it.
        correction: what else repairs it, if anything: the beginning of a sentence.
    """

    severity: Severity
    meaning: str
    repair: str | None = None
    error: type[DatasetError] = DatasetValidationError
    correction: str = "correct the rows"


SKIP = 'on_bad_rows="skip"'
BASIC = 'quality="basic"'

KINDS: dict[str, FindingKind] = {
    "parse": FindingKind("error", "cannot be parsed", SKIP, DatasetParseError),
    "encoding": FindingKind(
        "error",
        "are not in the file's encoding",
        SKIP,
        DatasetParseError,
        f"save the file as UTF-8 ({TO_UTF_8})",
    ),
    "too_long": FindingKind("error", "are too long to be a row", SKIP, DatasetParseError),
    "unrecognised": FindingKind(
        "error", "have no known row format", 'columns={"prompt": …, "completion": …}', DatasetFormatError
    ),
    "preference": FindingKind(
        "error",
        "are of a preference format, which train cannot learn from yet",
        'columns={"prompt": "prompt", "completion": "chosen"}',
        DatasetFormatError,
    ),
    "wrong_type": FindingKind("error", "have a field of the wrong type", SKIP),
    "unknown_role": FindingKind("error", "have a turn without a known role", SKIP),
    "unsupported_content": FindingKind("error", "hold an image, audio or file", SKIP),
    "empty": FindingKind("error", "are empty or have no answer in them", SKIP),
    "no_assistant": FindingKind("error", "have no assistant turn", SKIP),
    "swapped_roles": FindingKind(
        "error", "have no assistant turn that answers a user: the roles may be swapped", SKIP
    ),
    "template_refused": FindingKind("error", "are refused by the model's chat template", SKIP),
    "system_refused": FindingKind(
        "error", "have a system message, which the chat template refuses", "merge_system=true"
    ),
    "mask_inexact": FindingKind(
        "error", "have a turn whose tokens the chat template does not let be told", SKIP
    ),
    "system_lost": FindingKind(
        "warning", "have a system message that the chat template does not show", "merge_system=true"
    ),
    "nothing_to_learn": FindingKind(
        "warning", "have no trained token within max_seq_length", "max_seq_length=…", correction=""
    ),
    "truncated": FindingKind("warning", "are longer than max_seq_length and are cut", "max_seq_length=…"),
    "exact_duplicate": FindingKind("warning", "repeat another row", 'dedupe="exact"'),
    "near_duplicate": FindingKind("warning", "nearly repeat another row", 'dedupe="near"'),
    "control_tokens": FindingKind(
        "warning", "hold control tokens of a chat template in their text", 'control_tokens="remove"'
    ),
    "secret": FindingKind("warning", "hold what is probably a secret", 'private_data="hide"'),
    "personal": FindingKind("warning", "hold what is probably personal data", 'private_data="hide"'),
    "broken_text": FindingKind("warning", "hold characters that a wrong encoding left behind", BASIC),
    "empty_turn": FindingKind("warning", "have an empty turn", BASIC),
    "one_sided": FindingKind("warning", "have only the assistant's side", BASIC),
    "repeated_role": FindingKind("warning", "have two turns of one role in a row", BASIC),
    "unanswered_end": FindingKind("warning", "end with a turn that is not answered", BASIC),
    "late_system": FindingKind("warning", "have a system message after the first turn", BASIC),
    "repetitive": FindingKind("warning", "repeat themselves", BASIC),
    "too_short": FindingKind("warning", "have an answer of one character or none", BASIC),
}

LEFT_OUT_ONLY: dict[str, str] = {"not_sampled": "were not drawn (samples)"}
"""Reasons for leaving a row out that are no trouble."""


SINGULAR = {
    "are": "is",
    "have": "has",
    "hold": "holds",
    "repeat": "repeats",
    "end": "ends",
    "were": "was",
    "them": "it",
    "their": "its",
    "themselves": "itself",
}
"""The words of meanings that a single row changes."""


def meaning_of(kind: str, count: int) -> str:
    """What is said of so many rows of this kind, after `rows_of`."""
    meaning = KINDS[kind].meaning if kind in KINDS else LEFT_OUT_ONLY[kind]
    return meaning if count != 1 else re.sub(r"\w+", lambda word: SINGULAR.get(word[0], word[0]), meaning)


def rows_of(count: int) -> str:
    """`1 row`, `2,000 rows`."""
    return f"{count:,} {'row' if count == 1 else 'rows'}"


@dataclass
class Finding:
    """How often a kind of trouble was met, and where first.

    Args:
        places: of the first rows; as a text, with more to tell.
        exact_repair: the kind's repair with the value that these rows need.
        of_all_rows: no row is left to train on, which makes it an error.
    """

    kind: str
    count: int = 0
    places: list[Place | str] = field(default_factory=list[Place | str])
    details: Counter[str] = field(default_factory=Counter[str])
    exact_repair: str | None = None
    of_all_rows: bool = False

    @property
    def severity(self) -> Severity:
        if self.of_all_rows:
            return "error"
        return KINDS[self.kind].severity if self.kind in KINDS else "note"

    def repair(self, usable: int) -> str | None:
        """The argument that repairs it, if one does.

        Args:
            usable: rows that can be trained on as they are. Without any, skipping the others leaves nothing;
                with many, `columns` is no repair, since it applies to them too and would lose them.
        """
        repair = self.exact_repair or (KINDS[self.kind].repair if self.kind in KINDS else None)
        if repair and repair.startswith("columns=") and usable * MANY_TIMES > self.count:
            return SKIP
        return None if repair == SKIP and not usable else repair

    def sentence(self) -> str:
        """`3 rows cannot be parsed (a.jsonl:7, …): Expecting value at column 1`."""
        where = ", ".join(str(place) for place in self.places) + (
            ", …" if self.count > len(self.places) else ""
        )
        first = next(iter(self.details), "")
        told = f"{rows_of(self.count)} {meaning_of(self.kind, self.count)} ({where})"
        return told + (f": {first}" if first else "")

    def as_dict(self, usable: int) -> dict[str, Any]:
        """As it is told; `usable` as for `repair`."""
        return {
            "severity": self.severity,
            "kind": self.kind,
            "count": self.count,
            "first": [str(place) for place in self.places],
            "details": dict(self.details.most_common(3)),
            "repair": self.repair(usable),
        }


class Findings:
    """All findings of one pass over the data, in constant memory."""

    def __init__(self) -> None:
        self._found: dict[str, Finding] = {}

    def add(self, kind: str, place: Place | str, detail: str = "") -> None:
        finding = self._found.setdefault(kind, Finding(kind))
        finding.count += 1
        if len(finding.places) < SHOWN_PLACES:
            finding.places.append(place)
        if detail and (detail in finding.details or len(finding.details) < 20):
            finding.details[detail] += 1

    def suggest(self, kind: str, repair: str) -> None:
        """Says with which value a kind of trouble is repaired, if it was met."""
        if kind in self._found:
            self._found[kind].exact_repair = repair

    def of_all_rows(self, kind: str) -> None:
        """Says that no row is left to train on because of this kind of trouble, if it was met."""
        if kind in self._found:
            self._found[kind].of_all_rows = True

    def sorted(self) -> list[Finding]:
        """Errors first, then the most frequent."""
        order: dict[Severity, int] = {"error": 0, "warning": 1, "note": 2}
        return sorted(self._found.values(), key=lambda found: (order[found.severity], -found.count))

    def count(self, kind: str) -> int:
        return self._found[kind].count if kind in self._found else 0

    def errors(self) -> list[Finding]:
        return [found for found in self.sorted() if found.severity == "error"]


def remedy(findings: list[Finding], usable: int, call: str) -> str:
    """What to do about findings: `Correct the rows, or call again with on_bad_rows="skip"`.

    Args:
        usable: as for `Finding.repair`.
        call: how an argument is given: "call again with".
    """
    corrections = dict.fromkeys(KINDS[found.kind].correction for found in findings if found.kind in KINDS)
    repairs = dict.fromkeys(repair for found in findings if (repair := found.repair(usable)))
    ways = [way for way in corrections if way]
    if repairs:
        ways.append(f"{call} {' or '.join([*repairs][:3])}")
    text = ", or ".join(ways) or "correct the rows"
    return text[0].upper() + text[1:]


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
