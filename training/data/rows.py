"""From a file to conversations: reading, recognising each row's format, refusing what cannot be trained on.

Standard library only: a worker checks the data before it imports anything heavy.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config import DataGroup
from ..errors import DatasetError, DatasetParseError, DatasetValidationError, TrainingAbortedError
from .source import quick_check_source

ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "system": "system",
    "tool": "tool",
}
KNOWN_FORMATS = (
    "`conversations` (ShareGPT), `messages` (chat), `prompt`/`completion`, `instruction`/`output` (Alpaca) "
    "or `text`"
)
LOOK_EVERY = 1000  # rows between two looks at whether to stop


@dataclass(frozen=True)
class Message:
    role: str
    content: str


@dataclass(frozen=True)
class Row:
    """One row: a conversation, or plain text; `line` is where it stands in the file, from 1."""

    line: int
    messages: tuple[Message, ...] = ()
    text: str | None = None


def read_rows(data: DataGroup, seed: int, should_stop: Callable[[], bool] = lambda: False) -> list[Row]:
    """Every row of the dataset, checked; `data.samples` of them drawn with `seed` if that is set.

    Raises:
        DatasetParseError: a line is not JSON (with its number).
        DatasetValidationError: a row has no known format, or nothing to learn from.
        DatasetError: there are no rows.
    """
    path = quick_check_source(data.source)
    rows: list[Row] = []
    for line, value in _parsed_lines(path):
        rows.append(recognise(value, path, line))
        if len(rows) % LOOK_EVERY == 0 and should_stop():
            raise TrainingAbortedError("Cancelled while reading the data.")
    if not rows:
        raise DatasetError(f"{path} has no rows.", hint="One JSON object a line is expected.")
    if data.samples is not None and data.samples < len(rows):
        chosen = sorted(random.Random(seed).sample(range(len(rows)), data.samples))
        rows = [rows[index] for index in chosen]
    return rows


def _parsed_lines(path: Path) -> Iterator[tuple[int, Any]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            text = _decoded(line, path, number).strip()
            if not text:
                continue
            try:
                yield number, json.loads(text)
            except (ValueError, RecursionError) as error:
                raise DatasetParseError(
                    f"{path}, line {number}: not valid JSON ({error}).",
                    hint="Each line must be one JSON object; correct this line.",
                    cause=error,
                ) from error


def _decoded(line: bytes, path: Path, number: int) -> str:
    try:
        return line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise DatasetParseError(
            f"{path}, line {number}: not UTF-8 (byte {error.start}).",
            hint="Save the file as UTF-8.",
            cause=error,
        ) from error


def recognise(value: Any, path: Path, line: int) -> Row:
    """The row in its one form, whatever format it was written in.

    Raises:
        DatasetValidationError: the format is unknown, or there is nothing to learn from.
    """
    if not isinstance(value, dict):
        raise _bad(path, line, f"a JSON object is expected, not {type(value).__name__}")
    row: dict[str, Any] = value  # pyright: ignore[reportUnknownVariableType]
    if "conversations" in row:
        return _conversation(row["conversations"], "from", "value", path, line)
    if "messages" in row:
        return _conversation(row["messages"], "role", "content", path, line)
    if "prompt" in row and "completion" in row:
        return _pair(row["prompt"], row["completion"], path, line)
    if "instruction" in row and "output" in row:
        extra = row.get("input") or ""
        prompt = f"{row['instruction']}\n\n{extra}" if extra else row["instruction"]
        return _pair(prompt, row["output"], path, line)
    if "text" in row:
        text = row["text"]
        if not isinstance(text, str) or not text.strip():
            raise _bad(path, line, "`text` is empty or not a string")
        return Row(line, text=text)
    raise _bad(path, line, f"the keys {sorted(row)[:8]} fit no known format")


def _conversation(turns: Any, role_key: str, text_key: str, path: Path, line: int) -> Row:
    if not isinstance(turns, list) or not turns:
        raise _bad(path, line, "the list of turns is missing or empty")
    messages = tuple(
        _message(turn, role_key, text_key, path, line)
        for turn in turns  # pyright: ignore[reportUnknownVariableType]
    )
    if not any(message.role == "assistant" and message.content.strip() for message in messages):
        raise _bad(path, line, "there is no assistant turn to learn from")
    return Row(line, messages)


def _message(turn: Any, role_key: str, text_key: str, path: Path, line: int) -> Message:
    role, text = (turn.get(role_key), turn.get(text_key)) if isinstance(turn, dict) else (None, None)  # pyright: ignore[reportUnknownVariableType,reportUnknownMemberType]
    known = ROLES.get(role) if isinstance(role, str) else None
    if known is None:
        raise _bad(path, line, f"a turn has the role {role!r}; known are {', '.join(ROLES)}")
    if not isinstance(text, str):
        raise _bad(path, line, f"a turn's `{text_key}` is not a string")
    return Message(known, text)


def _pair(prompt: Any, completion: Any, path: Path, line: int) -> Row:
    if not isinstance(prompt, str) or not isinstance(completion, str):
        raise _bad(path, line, "prompt and answer must be strings")
    if not completion.strip():
        raise _bad(path, line, "the answer is empty: there is nothing to learn from")
    return Row(line, (Message("user", prompt), Message("assistant", completion)))


def _bad(path: Path, line: int, what: str) -> DatasetValidationError:
    return DatasetValidationError(
        f"{path}, line {line}: {what}.", hint=f"Each row is an object with {KNOWN_FORMATS}."
    )
