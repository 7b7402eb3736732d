"""Transforms of a row's text before training: removes control tokens, hides private data, drops rows."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

from ...config.specs import DataGroup
from ..formats.messages import Completion, Conversation, Message, Preference, Recognised, Text, texts_of
from ..formats.reading import Read
from .private_data import hide, personal_in, secrets_in
from .quality import QUALITY_KINDS, quality_findings

Change = Callable[[str], str]
"""Changes one text of a row."""


class Transforms:
    """Applies the settings to single rows: changes a row, or gives the reason to drop it.

    Args:
        control_tokens: pattern that matches control tokens.
    """

    def __init__(self, data: DataGroup, control_tokens: re.Pattern[str]) -> None:
        self._data = data
        self._control = control_tokens
        self._changes: list[Change] = []
        if data.control_tokens == "remove":
            self._changes.append(lambda text: control_tokens.sub("", text))
        if data.private_data == "hide":
            self._changes.append(hide)

    def apply(self, row: Recognised) -> Recognised:
        """The row with all changes of the settings."""
        return changed(row, self._change) if self._changes else row

    def _change(self, text: str) -> str:
        for change in self._changes:
            text = change(text)
        return text

    def reason_against(self, row: Recognised) -> str | None:
        """The kind of finding for which the settings drop the row, or None."""
        if self._data.quality == "basic":
            for kind in quality_findings(row):
                if kind in QUALITY_KINDS:
                    return kind
        texts = [text for _, text in texts_of(row)]
        if self._data.control_tokens == "skip" and any(self._control.search(text) for text in texts):
            return "control_tokens"
        if self._data.private_data == "skip":
            if any(secrets_in(text) for text in texts):
                return "secret"
            if any(personal_in(text) for text in texts):
                return "personal"
        return None


def changed(row: Recognised, change: Change) -> Recognised:
    """The row with `change` applied to every text."""
    if isinstance(row, Text):
        return replace(row, text=change(row.text))
    if isinstance(row, Completion):
        return replace(row, prompt=change(row.prompt), completion=change(row.completion))
    if isinstance(row, Conversation):
        return replace(row, messages=[_changed(message, change) for message in row.messages])
    assert isinstance(row, Preference)
    return row


def _changed(message: Message, change: Change) -> Message:
    result: dict[str, Any] = {**message, "content": change(message["content"])}
    if "reasoning_content" in message:
        result["reasoning_content"] = change(message["reasoning_content"])
    if "tool_calls" in message:
        result["tool_calls"] = _changed_values(message["tool_calls"], change)
    return result


def _changed_values(value: Any, change: Change) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [_changed_values(item, change) for item in value]  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, dict):
        return {key: _changed_values(item, change) for key, item in value.items()}  # pyright: ignore[reportUnknownVariableType]
    return value


def transformed(reads: Iterable[Read], transforms: Transforms) -> Iterator[Read]:
    """The rows as they are trained on; dropped rows have their reason."""
    for read in reads:
        # Tested before the changes: "skip" and `quality` judge the text of the file.
        reason = read.row and transforms.reason_against(read.row)
        if read.row is None:
            yield read
        elif reason:
            yield read.left_out(reason)
        else:
            row = transforms.apply(read.row)
            yield read if row is read.row else read._replace(row=row)
