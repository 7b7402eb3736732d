"""Rows of JSON Lines and of JSON files, streamed.

A JSON file contains an array of rows, an object of columns, one row, or (wrong extension) JSON Lines. Arrays
are read element by element. So a file may be larger than memory, and a malformed element is one bad row: its
end is found by counting brackets.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

from ...errors import DatasetParseError
from ...untrusted import quoted, short_name
from .decoding import MAX_ROW_BYTES, OnRead, not_decodable, open_bytes, read_lines
from .rows import NUL_BYTES, BadRow, Place, RawRow
from .text_encoding import encoding_hint, encoding_of

CHUNK = 2**20
MAX_COLUMNS_BYTES = 512 * 2**20
"""Limit of an object of columns, which cannot be streamed."""

BRACKET = re.compile(r'["{}\[\]]')
QUOTE = re.compile(r'["\\]')
BARE = re.compile(r"[^,\]]*")
SPACE = re.compile(r"[ \t\r\n]*")


class NotFiniteError(ValueError):
    """NaN and Infinity are not valid JSON, and would become the text "nan" in training."""


def _not_finite(constant: str) -> NoReturn:
    raise NotFiniteError(f"{constant} is not valid JSON")


DECODER = json.JSONDecoder(parse_constant=_not_finite)


def json_value(text: str) -> Any:
    """Parses strict JSON.

    Raises:
        ValueError: it is not valid JSON, is nested too deeply, or has an unpaired surrogate.
    """
    try:
        value = DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{error.msg} at column {error.pos + 1}") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if "\\u" in text:
        _refuse_surrogates(value)
    return value


def _refuse_surrogates(value: object) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ValueError("an escape such as \\ud83d is an unpaired surrogate") from None


def json_lines(
    path: Path, name: str, on_read: OnRead, encoding: str | None = None
) -> Iterator[RawRow | BadRow]:
    """The rows of a JSON Lines file; empty lines are skipped."""
    for line in read_lines(path, on_read, encoding):
        place = Place(name, line.number)
        if line.kind:
            yield BadRow(place, line.kind, line.reason, line.untrusted)
        elif line.text and not line.text.isspace():
            yield row_of(line.text, place)


def row_of(text: str, place: Place) -> RawRow | BadRow:
    """A row from one JSON text."""
    try:
        value = json_value(text)
    except ValueError as error:
        reason = NUL_BYTES if "\0" in text else str(error)
        return BadRow(place, "parse", reason)
    return checked_row(value, place)


def checked_row(value: Any, place: Place) -> RawRow | BadRow:
    """A row from a JSON value, which must be an object."""
    if isinstance(value, dict):
        return RawRow(place, value)  # pyright: ignore[reportUnknownArgumentType]
    return BadRow(place, "parse", f"{_name_of(value)} instead of an object {{…}}")


def _name_of(value: object) -> str:
    names: dict[type, str] = {list: "an array", str: "a string", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def json_file(
    path: Path, name: str, on_read: OnRead, encoding: str | None = None
) -> Iterator[RawRow | BadRow]:
    """The rows of a JSON file in any of its forms."""
    with closing(JsonText(path, name, on_read, encoding)) as text:
        first = text.peek()
        if first == "[":
            yield from text.elements()
    if first == "{" and _is_one_object(path, encoding):
        yield from _object_rows(path, name, on_read, encoding)
    elif first not in ("", "["):
        yield from json_lines(path, name, on_read, encoding)


def _is_one_object(path: Path, encoding: str | None) -> bool:
    """Whether a file that starts with `{` is one object. In JSON Lines the first line is a whole value."""
    first = next((line for line in read_lines(path, encoding=encoding) if line.text.strip()), None)
    if first is None or first.kind:
        return first is not None and first.kind == "too_long"
    try:
        DECODER.decode(first.text)
    except json.JSONDecodeError as error:
        return not error.msg.startswith("Extra data")
    except (ValueError, RecursionError):
        return False
    filled = (line for line in read_lines(path, encoding=encoding) if line.text.strip())
    return sum(1 for _ in islice(filled, 2)) == 1


def _object_rows(path: Path, name: str, on_read: OnRead, encoding: str | None) -> Iterator[RawRow | BadRow]:
    with open_bytes(path, on_read) as stream:
        encoding = encoding_of(stream, path, encoding)
        data = stream.read(MAX_COLUMNS_BYTES + 1)
    if len(data) > MAX_COLUMNS_BYTES:
        raise DatasetParseError(
            f"{short_name(name)} is one JSON object of more than {MAX_COLUMNS_BYTES // 2**20} MiB.",
            hint="Convert it to JSON Lines, one row per line.",
        )
    text = ""
    try:
        text = data.decode(encoding)
        value = json_value(text)
    except UnicodeDecodeError as error:
        raise DatasetParseError(
            f"{short_name(name)} is not {encoding.upper()} at byte {error.start + 1}.",
            hint=encoding_hint(not_decodable(path, encoding)),
        ) from None
    except ValueError as error:
        raise DatasetParseError(
            f"{short_name(name)}:{_line_of_error(text)} is not valid JSON: {error}."
        ) from None
    for number, row in enumerate(_rows_of_object(value, name), start=1):
        yield checked_row(row, Place(name, number, "row"))


def _line_of_error(text: str) -> int:
    try:
        DECODER.decode(text)
    except json.JSONDecodeError as error:
        return error.lineno
    except (ValueError, RecursionError):
        pass
    return 1


def _rows_of_object(value: dict[str, Any], name: str) -> Iterator[Any]:
    """One row (`{"messages": […]}`), rows under one key (`{"data": […]}`), or columns of one length."""
    lists: dict[str, list[Any]] = {key: item for key, item in value.items() if isinstance(item, list)}
    if len(lists) < len(value) or _is_chat(value):
        yield value
    elif len(value) == 1 and all(isinstance(item, dict) for items in lists.values() for item in items):
        yield from next(iter(lists.values()))
    elif len({len(item) for item in lists.values()}) > 1:
        lengths = ", ".join(f"{quoted(key)}: {len(item)}" for key, item in [*lists.items()][:8])
        raise DatasetParseError(f"The columns of {short_name(name)} have different lengths ({lengths}).")
    else:
        for values in zip(*lists.values(), strict=True):
            yield dict(zip(lists, values, strict=True))


def _is_chat(value: dict[str, Any]) -> bool:
    """Whether this is a single row with turns, not a column of such rows."""
    turns: list[Any] = value.get("messages") or value.get("conversations") or []
    return any(isinstance(turn, dict) for turn in turns)


class JsonText:
    """The decoded text of a JSON file, with only a window of it in memory."""

    def __init__(self, path: Path, name: str, on_read: OnRead, encoding: str | None) -> None:
        self._path, self._name = path, name
        self._stream = open_bytes(path, on_read)
        self._encoding = encoding_of(self._stream, path, encoding)
        self._decoder = codecs.getincrementaldecoder(self._encoding)()
        self._window, self._at, self._line, self._done = "", 0, 1, False

    def close(self) -> None:
        self._stream.close()

    def peek(self) -> str:
        """The next character that is not white space; "" at the end."""
        while True:
            self._skip(SPACE.match(self._window, self._at).end())  # pyright: ignore[reportOptionalMemberAccess]
            if self._at < len(self._window) or not self._more():
                return self._window[self._at : self._at + 1]

    def elements(self) -> Iterator[RawRow | BadRow]:
        """The elements of the array that starts here."""
        with self._stream:
            self._skip(self._at + 1)
            if self.peek() == "]":
                self._skip(self._at + 1)
            else:
                while True:
                    yield self._element()
                    if self._separator() == "]":
                        break
            if self.peek():
                raise DatasetParseError(
                    f"{short_name(self._name)}:{self._line} has text after the end of the array."
                )

    def _separator(self) -> str:
        found = self.peek()
        if found not in ("]", ",") or not found:
            what = f"{found!r}" if found else "the end of the file"
            raise DatasetParseError(
                f"{short_name(self._name)}:{self._line}: expected , or ] but found {what}."
            )
        self._skip(self._at + 1)
        return found

    def _element(self) -> RawRow | BadRow:
        first = self.peek()
        place = Place(self._name, self._line)
        if first in ("]", ",", ""):
            what = f"{first!r}" if first else "the end of the file"
            raise DatasetParseError(
                f"{place}: expected a row but found {what}.", hint="Remove the extra comma."
            )
        end = self._end_of_element(place)
        text = self._window[self._at : end]
        self._skip(end)
        return row_of(text, place)

    def _end_of_element(self, place: Place) -> int:
        """Index of the element's end: by decoding it or, if it is malformed, by counting brackets."""
        step = CHUNK
        while True:
            try:
                end = DECODER.raw_decode(self._window, self._at)[1]
                if end < len(self._window) or not self._more(step):
                    return end
            except (ValueError, RecursionError):
                end = _balanced_end(self._window, self._at)
                if end:
                    return end
                if not self._more(step):
                    raise DatasetParseError(f"{place}: the row that starts here is incomplete.") from None
            if len(self._window) - self._at > MAX_ROW_BYTES:
                raise DatasetParseError(
                    f"{place}: the row that starts here is longer than {MAX_ROW_BYTES // 2**20} MiB."
                )
            step *= 2

    def _skip(self, to: int) -> None:
        self._line += self._window.count("\n", self._at, to)
        self._at = to

    def _more(self, size: int = CHUNK) -> bool:
        """Extends the window; False at the end of the file."""
        if self._done:
            return False
        data = self._stream.read(size)
        self._done = not data
        try:
            text = self._decoder.decode(data, final=self._done)
        except UnicodeDecodeError as error:
            raise DatasetParseError(
                f"{short_name(self._name)}:{self._line}: what follows is not "
                f"{self._encoding.upper()}: {error.reason}.",
                hint=encoding_hint(not_decodable(self._path, self._encoding)),
            ) from None
        self._window, self._at = self._window[self._at :] + text, 0
        return bool(text) or not self._done


def _balanced_end(text: str, start: int) -> int:
    """The end of the brackets (or the bare word) that start at `start`; 0 if the brackets do not close."""
    if text[start] not in "{[":
        return BARE.match(text, start).end()  # pyright: ignore[reportOptionalMemberAccess]
    depth, at = 0, start
    while found := BRACKET.search(text, at):
        at = found.end()
        if found[0] == '"':
            at = _end_of_string(text, at)
            if not at:
                return 0
            continue
        depth += 1 if found[0] in "{[" else -1
        if depth <= 0:
            return at if depth == 0 else found.start()
    return 0


def _end_of_string(text: str, at: int) -> int:
    while found := QUOTE.search(text, at):
        if found[0] == '"':
            return found.end()
        at = found.end() + 1
    return 0
