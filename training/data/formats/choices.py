"""Recognises rows with several answers of which one is right, by the names that benchmarks use.

| part | keys |
|---|---|
| question | `question`, `prompt`, `query`, `input`, `instruction`, `ctx` |
| before it | `context`, `passage`, `support` |
| answers | `choices`, `options`, `endings` |
| right one | `answer`, `answerKey`, `label`, `answer_idx`, `correct`, `target`, `gold` |

Answers are texts, objects with `text` and `label`, `{"text": […], "label": […]}` or `{"A": text, "B": text}`.
The right one is a label, an answer, a letter, or an index from 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, cast

from ...untrusted import quoted
from ..readers.rows import RowError
from .messages import Completion
from .unread import filled, unread_keys

QUESTION = ("question", "prompt", "query", "input", "instruction", "ctx")
CONTEXT = ("context", "passage", "support")
CHOICES = ("choices", "options", "endings")
RIGHT = ("answer", "answerKey", "label", "answer_idx", "correct", "target", "gold")
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class ChoiceRow(NamedTuple):
    """A question with several answers.

    Args:
        row: the question with the right answer.
        choices: all answers.
        right: index of the right one.
    """

    row: Completion
    choices: tuple[str, ...]
    right: int


def choice_row(value: Mapping[str, Any], columns: Mapping[str, str] | None = None) -> ChoiceRow | None:
    """The row as a question with several answers; None if it has none.

    Args:
        columns: field → key of the row, for the question and the right answer.

    Raises:
        RowError: it has several answers, but no question, or the right one is not among them.
    """
    key = next((key for key in CHOICES if filled(value.get(key))), None)
    listed = _listed(value[key]) if key else None
    if key is None or listed is None:
        return None
    asked, right_key = _key(value, QUESTION, columns), _key(value, RIGHT, columns)
    if asked is None or right_key is None:
        missing = QUESTION if asked is None else RIGHT
        raise RowError("unrecognised", f"{key} without {missing[0]} ({', '.join(missing)})")
    labels, texts = listed
    right = _right(value[right_key], labels, texts, right_key)
    contexts = [name for name in CONTEXT if isinstance(value.get(name), str) and filled(value[name])]
    question = "\n\n".join([*(value[name] for name in contexts), str(value[asked])])
    unread = unread_keys(value, {key, asked, right_key, *contexts})
    return ChoiceRow(Completion("question_answer", question, texts[right], unread), texts, right)


def _key(value: Mapping[str, Any], names: tuple[str, ...], columns: Mapping[str, str] | None) -> str | None:
    mapped = [columns[name] for name in names if columns and name in columns]
    return next((key for key in [*mapped, *names] if value.get(key) is not None), None)


Listed = tuple[tuple[str, ...], tuple[str, ...]]
"""The labels of the answers, maybe none, and the answers."""


def _listed(value: object) -> Listed | None:
    if isinstance(value, dict):
        return _of_columns(cast("dict[str, Any]", value))
    if not isinstance(value, list):
        return None
    items = cast("list[Any]", value)
    if all(isinstance(item, dict) for item in items):
        parts = cast("list[dict[str, Any]]", items)
        labels = [str(part["label"]) for part in parts if part.get("label") is not None]
        return _texts([part.get("text") for part in parts], labels)
    return _texts(items, [])


def _of_columns(value: dict[str, Any]) -> Listed | None:
    """`{"text": […], "label": […]}`, or `{"A": text, "B": text}`."""
    if isinstance(value.get("text"), list):
        labels: list[Any] = value.get("label") or []
        return _texts(value["text"], [str(label) for label in labels])
    return _texts(list(value.values()), list(value))


def _texts(texts: list[Any], labels: list[str]) -> Listed | None:
    if len(texts) < 2 or not all(isinstance(text, str | int | float) and str(text).strip() for text in texts):
        return None
    return tuple(labels) if len(labels) == len(texts) else (), tuple(map(str, texts))


def _right(given: object, labels: tuple[str, ...], texts: tuple[str, ...], key: str) -> int:
    """The index of the right answer: of an integer itself, of a text by label, answer, letter or index."""
    if isinstance(given, int) and not isinstance(given, bool) and str(given) not in labels:
        return _within(given, texts, key)
    text = str(given).strip()
    for known in (labels, texts, tuple(LETTERS[: len(texts)])):
        if text in known:
            return known.index(text)
    if text.isdecimal():
        return _within(int(text), texts, key)
    raise RowError("wrong_type", f"{key} {quoted(text)} is none of the {len(texts)} answers")


def _within(index: int, texts: tuple[str, ...], key: str) -> int:
    if 0 <= index < len(texts):
        return index
    raise RowError("wrong_type", f"{key} {index} is no index of {len(texts)} answers, which count from 0")
