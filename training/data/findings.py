"""The kinds of problems that rows can have, each with its severity, its repair and its error class."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from ..errors import DatasetError, DatasetFormatError, DatasetParseError, DatasetValidationError
from .readers.rows import Place
from .readers.text_encoding import AS_WINDOWS_1252, SAVE_AS_UTF_8
from .row_counts import rows_of

Severity = Literal["error", "warning", "note"]
SHOWN_PLACES = 5
MAX_DETAILS = 20
"""Different reasons that are counted for a kind."""
MANY_TIMES = 10
"""`columns` is suggested only if it repairs at least this many times the rows that it makes unusable."""


class FindingKind(NamedTuple):
    """A kind of finding.

    Args:
        severity: "error" makes a row unusable, and the whole dataset too unless `on_bad_rows` is "skip".
        meaning: continues "3 rows …".
        repair: the setting that repairs it, e.g. `dedupe="exact"`, or None.
        error: the exception class that is raised for it.
        correction: another way to repair it, as the start of a sentence; "" for none.
    """

    severity: Severity
    meaning: str
    repair: str | None = None
    error: type[DatasetError] = DatasetValidationError
    correction: str = "correct the rows"


SKIP = 'on_bad_rows="skip"'
BASIC = 'quality="basic"'

SHOWN = "use a model whose chat template shows it"

KINDS: dict[str, FindingKind] = {
    "parse": FindingKind("error", "cannot be parsed", SKIP, DatasetParseError),
    "encoding": FindingKind(
        "error",
        "are not in the file's encoding",
        SKIP,
        DatasetParseError,
        SAVE_AS_UTF_8,
    ),
    "windows_1252": FindingKind(
        "error",
        "are not UTF-8; the file is probably Windows-1252, as Excel saves it",
        AS_WINDOWS_1252,
        DatasetParseError,
        correction="",
    ),
    "too_long": FindingKind("error", "are too long to be a row", SKIP, DatasetParseError),
    "unrecognised": FindingKind(
        "error", "have no known row format", 'columns={"prompt": …, "completion": …}', DatasetFormatError
    ),
    "preference": FindingKind(
        "error",
        "have a preference format, which cannot be trained on yet",
        'columns={"prompt": "prompt", "completion": "chosen"}',
        DatasetFormatError,
    ),
    "openai_preference": FindingKind(
        "error",
        "have OpenAI's preference format (DPO), which cannot be trained on yet",
        'columns={"prompt": "input", "completion": "preferred_output"}',
        DatasetFormatError,
        "keep the preferred answers as chat rows with `messages`",
    ),
    "wrong_type": FindingKind("error", "have a field of the wrong type", SKIP),
    "unknown_role": FindingKind("error", "have a turn without a known role", SKIP),
    "kto": FindingKind(
        "error",
        "have a KTO label for good and bad answers, which cannot be trained on yet",
        SKIP,
        DatasetFormatError,
        "keep only the rows with a good answer, without the label",
    ),
    "unsupported_content": FindingKind("error", "contain an image, audio or a file", SKIP),
    "empty": FindingKind("error", "are empty or have no answer", SKIP),
    "no_assistant": FindingKind("error", "have no assistant turn", SKIP),
    "swapped_roles": FindingKind(
        "error", "have no assistant turn that answers a user: the roles may be swapped", SKIP
    ),
    "template_refused": FindingKind("error", "are refused by the model's chat template", SKIP),
    "system_refused": FindingKind(
        "error", "have a system message, which the chat template refuses", "merge_system=true"
    ),
    "mask_inexact": FindingKind(
        "error", "have a turn for which the chat template allows no exact loss mask", SKIP
    ),
    "answer_lost": FindingKind(
        "error",
        "have an answer of which the chat template shows nothing",
        SKIP,
        correction=SHOWN,
    ),
    "tool_call_lost": FindingKind(
        "error",
        "have a tool call that the chat template drops, in whole or in part",
        SKIP,
        correction=SHOWN,
    ),
    "system_lost": FindingKind(
        "warning", "have a system message that the chat template drops", "merge_system=true"
    ),
    "tools_lost": FindingKind(
        "warning",
        "have a list of tools that the chat template drops, in whole or in part",
        correction=SHOWN,
    ),
    "tool_result_lost": FindingKind(
        "warning",
        "have a tool's result that the chat template drops",
        correction=SHOWN,
    ),
    "reasoning_lost": FindingKind(
        "warning",
        "have reasoning that the chat template drops",
        correction=SHOWN,
    ),
    "text_lost": FindingKind(
        "warning",
        "have a turn with text that the chat template drops",
        correction="move the text to a turn of its own",
    ),
    "unread": FindingKind(
        "warning",
        "have keys with content that is not trained on",
        correction="move what belongs to the text to a key that is read",
    ),
    "metadata": FindingKind("note", "have keys that describe them and are not trained on", correction=""),
    "name_lost": FindingKind(
        "note", "have names of speakers or tools that the chat template drops", correction=""
    ),
    "nothing_to_learn": FindingKind(
        "warning", "have no trained token within max_seq_length", "max_seq_length=…", correction=""
    ),
    "unknown_token": FindingKind(
        "error",
        "have a token for which the model has no embedding: it was added to the tokenizer only",
        SKIP,
        correction="use the tokenizer and the chat template that belong to the model",
    ),
    "beyond_positions": FindingKind(
        "warning", "are truncated to the positions that the model has", correction=""
    ),
    "truncated": FindingKind("warning", "are truncated to max_seq_length", "max_seq_length=…"),
    "exact_duplicate": FindingKind("warning", "are equal to another row", 'dedupe="exact"'),
    "near_duplicate": FindingKind("warning", "are nearly equal to another row", 'dedupe="near"'),
    "control_tokens": FindingKind(
        "warning", "contain control tokens of a chat template in their text", 'control_tokens="remove"'
    ),
    "json_text": FindingKind(
        "warning",
        "are texts that hold the JSON of a row: it is trained on as text",
        correction="give the JSON's keys as keys of the row",
    ),
    "rendered": FindingKind(
        "warning",
        "are texts with control tokens, perhaps rendered conversations: every token is trained",
        'control_tokens="skip"',
        correction="give the turns as messages",
    ),
    "secret": FindingKind("warning", "probably contain a secret", 'private_data="hide"'),
    "personal": FindingKind("warning", "probably contain personal data", 'private_data="hide"'),
    "broken_text": FindingKind("warning", "contain characters of a wrong encoding", BASIC),
    "empty_turn": FindingKind("warning", "have an empty turn", BASIC),
    "one_sided": FindingKind("warning", "have assistant turns only", BASIC),
    "repeated_role": FindingKind("warning", "have consecutive turns of the same role", BASIC),
    "unanswered_end": FindingKind("warning", "end with an unanswered turn", BASIC),
    "late_system": FindingKind("warning", "have a system message after the first turn", BASIC),
    "repetitive": FindingKind("warning", "are repetitive", BASIC),
    "too_short": FindingKind("warning", "have an answer of one character or none", BASIC),
}

LEFT_OUT_ONLY: dict[str, str] = {"not_sampled": "are not in the sample (samples)"}
"""Reasons for not using a row that are not problems."""

SINGULAR = {
    "are": "is",
    "have": "has",
    "contain": "contains",
    "end": "ends",
    "their": "its",
}
"""The words of meanings that differ for a single row."""


def meaning_of(kind: str, count: int) -> str:
    """The meaning of a kind for this number of rows; it follows `rows_of`."""
    meaning = KINDS[kind].meaning if kind in KINDS else LEFT_OUT_ONLY[kind]
    return meaning if count != 1 else re.sub(r"\w+", lambda word: SINGULAR.get(word[0], word[0]), meaning)


@dataclass
class Finding:
    """The rows of one kind: how many, and the first places.

    Args:
        places: of the first rows; a text if it has more details.
        details, untrusted_details: reasons, ours and others', and how often each occurred.
        exact_repair: the kind's repair with the value for these rows.
        of_all_rows: no row is left to train on, so the severity is "error".
    """

    kind: str
    count: int = 0
    places: list[Place | str] = field(default_factory=list[Place | str])
    details: Counter[str] = field(default_factory=Counter[str])
    untrusted_details: Counter[str] = field(default_factory=Counter[str])
    exact_repair: str | None = None
    of_all_rows: bool = False

    @property
    def severity(self) -> Severity:
        """As for `FindingKind`; "note" for reasons that are not problems."""
        if self.of_all_rows:
            return "error"
        return KINDS[self.kind].severity if self.kind in KINDS else "note"

    def repair(self, usable: int) -> str | None:
        """The setting that repairs it, or None.

        Args:
            usable: number of rows that can be trained on as they are. With none, skipping the others leaves
                nothing. With many, `columns` is no repair: it applies to them too and makes them unusable.
        """
        repair = self.exact_repair or (KINDS[self.kind].repair if self.kind in KINDS else None)
        unusable = self.severity == "error"
        if repair and repair.startswith("columns=") and unusable and usable * MANY_TIMES > self.count:
            return SKIP
        return None if repair == SKIP and not usable else repair

    def sentence(self) -> str:
        """`3 rows cannot be parsed (a.jsonl:7, …): Expecting value at column 1`."""
        where = ", ".join(str(place) for place in self.places) + (
            ", …" if self.count > len(self.places) else ""
        )
        first = next(iter(self.details), "")
        text = f"{rows_of(self.count)} {meaning_of(self.kind, self.count)} ({where})"
        return text + (f": {first}" if first else "")

    def as_dict(self, usable: int) -> dict[str, Any]:
        """For results; `usable` as for `repair`."""
        return {
            "severity": self.severity,
            "kind": self.kind,
            "count": self.count,
            "first": [str(place) for place in self.places],
            "details": dict(self.details.most_common(3)),
            "untrusted_details": dict(self.untrusted_details.most_common(3)),
            "repair": self.repair(usable),
        }


class Findings:
    """All findings of one pass over the data, in constant memory."""

    def __init__(self) -> None:
        self._found: dict[str, Finding] = {}

    def add(self, kind: str, place: Place | str, detail: str = "", untrusted: str = "") -> None:
        """Adds a row; `detail` and `untrusted` say what is wrong with it, as in `RowError`."""
        finding = self._found.setdefault(kind, Finding(kind))
        finding.count += 1
        if len(finding.places) < SHOWN_PLACES:
            finding.places.append(place)
        for counts, text in ((finding.details, detail), (finding.untrusted_details, untrusted)):
            if text and (text in counts or len(counts) < MAX_DETAILS):
                counts[text] += 1

    def suggest(self, kind: str, repair: str) -> None:
        """Sets the exact repair of a kind, if it occurred."""
        if kind in self._found:
            self._found[kind].exact_repair = repair

    def of_all_rows(self, kind: str) -> None:
        """Makes a kind an error, if it occurred: it leaves no row to train on."""
        if kind in self._found:
            self._found[kind].of_all_rows = True

    def sorted(self) -> list[Finding]:
        """Errors first, then the most frequent."""
        order: dict[Severity, int] = {"error": 0, "warning": 1, "note": 2}
        return sorted(self._found.values(), key=lambda found: (order[found.severity], -found.count))

    def count(self, kind: str) -> int:
        """Number of rows of a kind."""
        return self._found[kind].count if kind in self._found else 0

    def errors(self) -> list[Finding]:
        """The findings of severity "error"."""
        return [found for found in self.sorted() if found.severity == "error"]


def remedy(findings: list[Finding], usable: int) -> str:
    """How to repair findings: `Correct the rows, or set on_bad_rows="skip"`.

    Args:
        usable: as for `Finding.repair`.
    """
    corrections = dict.fromkeys(KINDS[found.kind].correction for found in findings if found.kind in KINDS)
    repairs = dict.fromkeys(repair for found in findings if (repair := found.repair(usable)))
    ways = [way for way in corrections if way]
    if AS_WINDOWS_1252 in repairs:  # the other rows are looked at once all can be read
        ways, repairs = [], {AS_WINDOWS_1252: None}
    if repairs:
        ways.append(f"set {' or '.join([*repairs][:3])}")
    text = ", or ".join(ways) or "correct the rows"
    return text[0].upper() + text[1:]


def refuse_bad_rows(findings: Findings, rows: int, usable: int, on_bad_rows: str) -> None:
    """Raises if rows are bad and `on_bad_rows` is "refuse", or no row is left.

    Raises:
        DatasetError: as described, in the class of the most frequent error.
    """
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
    more = f"; and {len(findings) - 3} more kinds of problems" if len(findings) > 3 else ""
    error = KINDS[findings[0].kind].error if findings[0].severity == "error" else DatasetError
    # For rows that `quality="basic"` dropped, the repair is to switch it off.
    hint = remedy(findings, usable).replace(BASIC, 'quality="off"')
    foreign = "; ".join(text for found in findings[:3] for text, _ in found.untrusted_details.most_common(3))
    return error(f"{message}: {sentences}{more}.", hint=f"{hint}.", untrusted=foreign)
