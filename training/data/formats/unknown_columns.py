"""The `columns` that rows with unknown keys probably need: which key is the question, which one the answer.

It is a proposal: the user sees a row beside it, and decides.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any, cast

from ..readers.rows import RowError
from .recognise import recognise
from .unread import is_metadata
from .validity import require_trainable

ROWS = 1_000
"""Rows that are looked at."""
SHARE = 0.9
"""Share of them that a proposal must fit."""

PLAIN_NAME = re.compile(r"[\w .,:;()/?#%&+-]{1,32}")
"""A key that may stand in a repair: short, without quotes, brackets and control characters."""

QUESTION = re.compile(
    "question|prompt|query|instruction|input|user|human|frage|aufgabe|eingabe|pregunta|consulta|domanda|pergunta"
    "|vraag|fråga|spørgsmål|pytanie|soru|вопрос|问题|問題|質問|질문|سؤال|प्रश्न"
)
ANSWER = re.compile(
    "answer|response|reply|completion|output|assistant|antwort|lösung|ausgabe|respuesta|réponse|reponse|risposta"
    "|resposta|antwoord|svar|odpowied|cevap|ответ|回答|答案|答え|답변|جواب|उत्तर"
)
"""Words in the names of columns."""


class UnknownColumns:
    """Rows with unknown keys, and the `columns` that most of them need."""

    def __init__(self) -> None:
        self._rows = 0
        self._found: Counter[str] = Counter()

    def add(self, row: Mapping[str, Any]) -> None:
        """Adds a row as it was read."""
        if self._rows < ROWS:
            self._rows += 1
            self._found[json.dumps(probable_columns(row), ensure_ascii=False)] += 1

    def repair(self) -> str | None:
        """The setting, e.g. `columns={"prompt": "Frage", "completion": "Antwort"}`; None: it is not clear."""
        columns, count = self._found.most_common(1)[0] if self._found else ("{}", 0)
        return f"columns={columns}" if columns != "{}" and count >= SHARE * self._rows else None


def probable_columns(row: Mapping[str, Any]) -> dict[str, str]:
    """Field → key for a row with unknown keys; empty if it is not clear."""
    for columns in (_turns(row), _pair(row), _text(row)):
        if columns and all(map(PLAIN_NAME.fullmatch, columns.values())) and _is_trainable(row, columns):
            return columns
    return {}


def _is_trainable(row: Mapping[str, Any], columns: Mapping[str, str]) -> bool:
    try:
        require_trainable(recognise(row, columns))
    except RowError:
        return False
    return True


def _turns(row: Mapping[str, Any]) -> dict[str, str]:
    lists = [key for key, value in row.items() if _is_list_of_objects(value)]
    return {"messages": lists[0]} if len(lists) == 1 else {}


def _is_list_of_objects(value: object) -> bool:
    items = cast("list[object]", value) if isinstance(value, list) else []
    return bool(items) and all(isinstance(item, dict) for item in items)


def _pair(row: Mapping[str, Any]) -> dict[str, str]:
    """Question and answer by their names, or else the only two texts, in their order."""
    texts = _texts(row)
    questions = [key for key in texts if _says(key, QUESTION, ANSWER)]
    answers = [key for key in texts if _says(key, ANSWER, QUESTION)]
    if len(questions) == len(answers) == 1:
        return {"prompt": questions[0], "completion": answers[0]}
    if len(texts) != 2 or len(questions) == 2 or len(answers) == 2:
        return {}
    first, second = texts
    if first in answers or second in questions:
        first, second = second, first
    return {"prompt": first, "completion": second}


def _says(key: str, words: re.Pattern[str], others: re.Pattern[str]) -> bool:
    name = key.casefold()
    return bool(words.search(name)) and not others.search(name)


def _text(row: Mapping[str, Any]) -> dict[str, str]:
    keys = [key for key in row if not is_metadata(key)]
    return {"text": keys[0]} if _texts(row) == keys and len(keys) == 1 else {}


def _texts(row: Mapping[str, Any]) -> list[str]:
    """The keys with words: not metadata, numbers or dates."""
    return [
        key
        for key, value in row.items()
        if isinstance(value, str) and not is_metadata(key) and any(map(str.isalpha, value[:1000]))
    ]
