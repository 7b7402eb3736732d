"""Collects the result of an inspection row by row.

Memory: 22 bytes per row (content hash, place, length), and about 100 more at the end, while duplicates are
searched: 120 MB for a million rows.
"""

from __future__ import annotations

import json
from array import array
from typing import TYPE_CHECKING, Any

from ...config.specs import DataGroup
from ...errors import ChatTemplateError
from ...untrusted import shortened
from ..chat_template.control_tokens import control_tokens
from ..cleaning.exact_duplicates import first_of_each, row_hash
from ..cleaning.near_duplicates import NearDuplicates
from ..cleaning.private_data import personal_in, secrets_in
from ..cleaning.quality import quality_findings
from ..cleaning.untrusted_text import safe_line, safe_tokens, with_loss_marks
from ..cleaning.unusable_rows import UnusableRows
from ..findings import SHOWN_PLACES, Finding, Findings, remedy
from ..formats.messages import Conversation, Recognised, Text, texts_of
from ..formats.reading import Read
from ..formats.validity import turn_pattern, unread_findings
from ..readers.rows import MAX_UNTRUSTED, Place, RowError, Unit
from ..readers.sources import Source
from ..split.held_out import held_out_count, note_on_held_out
from ..tokens.encode import CHARACTERS_AT_ONCE, ROWS_AT_ONCE, Encoded, Encoder, Rendered
from ..tokens.token_lengths import TokenLengths
from .inspection_result import Inspection

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MEASURED_ROWS = 20_000
"""Limit of rows whose tokens are counted. For a larger dataset they are a sample, and the result says so."""

PREVIEW_TOKENS = 600
"""Limit for all rows of the preview together, where they are shown token by token."""

LONGEST_SECRET = 300
"""Tokens after those that are shown in which a secret may end."""

PREVIEW_CHARACTERS = 1_800
"""Limit for all rows of the preview together."""


class Inspector:
    """Collects counts, findings, lengths and the preview. Call `add` for each row, then `finish`."""

    def __init__(self, source: Source, encoder: Encoder | None, data: DataGroup, preview: int) -> None:
        self._source, self._encoder, self._data, self._preview = source, encoder, data, preview
        self._control = control_tokens(encoder.added_tokens if encoder else frozenset())
        self._result = Inspection(
            files=[part.name for part in source.parts], size_bytes=source.size(), notes=list(source.notes)
        )
        self._findings = Findings()
        self._unusable = UnusableRows(self._findings)
        self._hashes, self._numbers, self._parts = array("Q"), array("Q"), array("I")
        self._units: dict[int, Unit] = {}
        self._lengths = TokenLengths()
        self._trainable = 0
        self._template_error: ChatTemplateError | None = None
        self._longest: tuple[int, Recognised] | None = None
        self._waiting: list[tuple[Place, Rendered]] = []
        self._characters = 0

    def add(self, read: Read, index: NearDuplicates, expected_rows: int) -> None:
        """Adds a row.

        Args:
            expected_rows: estimated number of rows of the source.
        """
        self._result.rows += 1
        if read.row is None:
            self._unusable.add(read)
            return
        self._result.usable += 1
        index.add(len(self._hashes), read.row)
        self._hashes.append(row_hash(read.row))
        self._numbers.append(read.place.number)
        self._parts.append(read.part)
        self._units[read.part] = read.place.unit
        self._count(read.row)
        self._judge(read.row, read.place)
        if self._encoder is not None:
            self._measure(read.row, read.place, expected_rows)

    def _count(self, row: Recognised) -> None:
        self._result.formats[row.format] += 1
        pattern = turn_pattern(row)
        if pattern in self._result.turns or len(self._result.turns) < 1000:
            self._result.turns[pattern] += 1
        if isinstance(row, Conversation):
            self._result.roles.update(message["role"] for message in row.messages)

    def _judge(self, row: Recognised, place: Place) -> None:
        for kind in quality_findings(row):
            self._findings.add(kind, place)
        for kind, keys in unread_findings(row):
            self._findings.add(kind, place, keys)
        text = "\n".join(text for _, text in texts_of(row))
        token = self._control.search(text) if "<" in text or "[" in text else None
        if token:
            # Of a rendered conversation the tokens mark the turns: removing them would destroy it.
            self._findings.add("rendered" if isinstance(row, Text) else "control_tokens", place, token[0])
        for kind, found in (("secret", secrets_in(text)), ("personal", personal_in(text))):
            if found:
                self._findings.add(kind, place, ", ".join(sorted(found)))

    def _measure(self, row: Recognised, place: Place, expected_rows: int) -> None:
        size = sum(len(text) for _, text in texts_of(row))
        if self._longest is None or size > self._longest[0]:
            self._longest = (size, row)
        # Chosen by content, so that the sample does not depend on the order of the rows.
        chosen = self._hashes[-1] % 2**32 < 2**32 * min(1.0, MEASURED_ROWS / expected_rows)
        if not chosen and len(self._hashes) > self._preview:
            return
        rendered = self._render(row, place)
        if rendered is not None:
            self._waiting.append((place, rendered))
            self._characters += len(rendered.text)
        if len(self._waiting) == ROWS_AT_ONCE or self._characters > CHARACTERS_AT_ONCE:
            self._tokenise()

    def _render(self, row: Recognised, place: Place) -> Rendered | None:
        assert self._encoder is not None
        try:
            return self._encoder.render(row)
        except RowError as error:
            self._findings.add(error.kind, place, error.reason, error.untrusted)
        except ChatTemplateError as error:
            self._template_error = error
            note = error.sentence()
            if note not in self._result.notes:
                self._result.notes.append(note)
                self._result.untrusted_details = error.untrusted
        return None

    def _tokenise(self) -> None:
        if self._encoder is None:
            return
        encoded = self._encoder.tokenise([rendered for _, rendered in self._waiting])
        for (place, _), one in zip(self._waiting, encoded, strict=True):
            self._lengths.add(one.length, one.kept, one.trained)
            self._trainable += bool(one.trained) and not one.refusal
            for kind in one.kinds:
                self._findings.add(kind, place, one.reason if kind == one.refusal else "")
            if len(self._result.preview) < self._preview:
                self._show(place, one)
        self._waiting.clear()
        self._characters = 0

    def _show(self, place: Place, one: Encoded) -> None:
        assert self._encoder is not None
        cut, shown = one.kept < one.length, max(1, self._preview)
        most = PREVIEW_TOKENS // shown
        tokens = self._encoder.decoded_tokens(one, most + LONGEST_SECRET)
        self._result.preview.append(
            {
                "place": str(place),
                "tokens": one.length,
                "trained_tokens": one.trained,
                "untrusted_text": shortened(
                    with_loss_marks(
                        self._encoder.decoded(_ends_of(one, self._encoder.max_seq_length)), cut=cut
                    ),
                    PREVIEW_CHARACTERS // shown,
                ),
                "untrusted_tokens": [list(token) for token in safe_tokens(tokens, most)],  # as JSON has them
            }
        )

    def finish(self, index: NearDuplicates) -> Inspection:
        """The result, once every row has been added."""
        # The rest of the batch first: it adds findings and lengths, which all that follows uses.
        self._tokenise()
        self._find_duplicates(index)
        if self._encoder is not None:
            self._measure_longest()
            self._result.tokens = self._lengths.as_dict(self._result.usable, self._encoder.max_seq_length)
        self._judge_all()
        self._count_held_out()
        return self._result

    def _count_held_out(self) -> None:
        if self._source.trained is not None:
            self._result.held_out = sum(part >= self._source.trained for part in self._parts)
            return
        usable, share = self._result.usable, self._data.held_out
        self._result.held_out = held_out_count(usable, share)
        if note := note_on_held_out(usable, share):
            self._result.notes.append(note)

    def _judge_all(self) -> None:
        """Sets the findings, and what must be done before training."""
        if self._encoder is not None and not self._trainable:
            self._result.usable = 0
        usable = self._result.usable
        self._unusable.suggest()
        for kind in ("truncated", "nothing_to_learn"):
            self._findings.suggest(kind, f"max_seq_length={self._lengths.sufficient_length()}")
        if not usable:
            self._findings.of_all_rows("nothing_to_learn")
        self._result.findings = [self._as_dict(found, usable) for found in self._findings.sorted()]
        skips = bool(usable) and self._data.on_bad_rows == "skip"
        errors = [] if skips else self._findings.errors()
        if self._result.rows == 0:
            self._result.findings = [_no_rows(self._result.files)]
            self._result.remedy = "Give a dataset with at least one row"
        elif errors:
            self._result.remedy = remedy(errors, usable)
        elif self._template_error:
            self._result.remedy = (self._template_error.hint or "Give another model").rstrip(".")

    def _measure_longest(self) -> None:
        """Measures the row with the most characters, so that the maximum is right even for a sample."""
        if self._longest is None or self._encoder is None or len(self._lengths) == self._result.usable:
            return
        rendered = self._render(self._longest[1], Place("", 0))
        if rendered is not None:
            one = self._encoder.tokenise([rendered])[0]
            self._lengths.add(one.length, one.kept, one.trained)

    def _find_duplicates(self, index: NearDuplicates) -> None:
        import numpy as np

        if not self._hashes:
            return
        first = first_of_each(np.frombuffer(self._hashes, np.uint64))
        repeats = first != np.arange(len(first), dtype=first.dtype)
        self._add_duplicates("exact_duplicate", np.flatnonzero(repeats), first)
        clusters = index.clusters(len(first))
        near = first[clusters] != np.arange(len(first), dtype=first.dtype)
        self._add_duplicates("near_duplicate", np.flatnonzero(near & ~repeats), clusters)

    def _add_duplicates(self, kind: str, rows: NDArray[np.int64], first: NDArray[Any]) -> None:
        for row in rows.tolist():
            place: Place | str = self._place(row)
            if self._findings.count(kind) < SHOWN_PLACES:
                place = f"{safe_line(str(place), 46)} (as {safe_line(str(self._place(int(first[row]))), 46)})"
            self._findings.add(kind, place)

    def _place(self, row: int) -> Place:
        part = self._parts[row]
        return Place(self._source.parts[part].name, self._numbers[row], self._units[part])

    def _as_dict(self, found: Finding, usable: int) -> dict[str, Any]:
        result = found.as_dict(usable)
        result["is_set"] = _is_set(result["repair"], self._data) or None
        for key, limit in (("details", 120), ("untrusted_details", MAX_UNTRUSTED)):
            result[key] = {safe_line(text, limit): count for text, count in result[key].items()}
        result["first"] = [safe_line(place, 100) for place in result["first"]]
        return result


def _ends_of(one: Encoded, size: int) -> Encoded:
    """The row with only those of its many examples that a preview shows: the first and the last ones."""
    count = 1 + 4 * PREVIEW_CHARACTERS // size
    return one if len(one.parts) <= 2 * count else one._replace(parts=one.parts[:count] + one.parts[-count:])


def _is_set(repair: str | None, data: DataGroup) -> bool:
    """Whether the settings have this repair already."""
    if repair == 'dedupe="exact"' and data.dedupe == "near":  # which leaves out equal rows too
        return True
    return repair in {f"{name}={json.dumps(value)}" for name, value in data.model_dump(mode="json").items()}


def _no_rows(files: list[str]) -> dict[str, Any]:
    """A finding about files, not rows, and so not one of `findings.KINDS`."""
    return {
        "severity": "error",
        "kind": "no_rows",
        "count": len(files),
        "first": [safe_line(name, 100) for name in files[:SHOWN_PLACES]],
        "details": {},
        "repair": None,
    }
