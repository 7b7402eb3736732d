"""The values of a row that its format does not read. No value is dropped without a finding."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from typing import Any, cast

from ...untrusted import quoted
from ..readers.rows import RowError

METADATA = frozenset((
    "author", "categories", "category", "conversation_id", "created", "created_at", "dataset", "date",
    "difficulty", "domain", "guid", "hash", "id", "ids", "idx", "index", "lang", "language", "length",
    "license", "link", "locale", "meta", "metadata", "model", "model_name", "num_tokens", "num_turns",
    "origin", "parallel_tool_calls", "prompt_id", "quality", "rating", "row_id", "score", "source",
    "split", "subset", "tag", "tags", "task", "timestamp", "token_count", "topic", "turns", "updated_at",
    "url", "user_id", "uuid", "version",
))  # fmt: skip
"""Usual names of keys that describe a row and are not part of its text."""

MEDIA = frozenset(("audio", "audios", "image", "images", "video", "videos"))
"""Usual names of keys whose content the text refers to, and which cannot be trained on."""


def filled(value: object) -> bool:
    """Whether a value has content: not null, not blank, not an empty list or object."""
    if isinstance(value, str):
        return bool(value.strip())
    return value is not None and value != [] and value != {}


def unread_keys(row: Mapping[str, Any], read: Container[str], texts: Sequence[str] = ()) -> tuple[str, ...]:
    """The keys of a row that have content and are not in `read`.

    Args:
        texts: what the row is read as. A key with one of these texts, e.g. a copy of the first question, is
            not listed.

    Raises:
        RowError: the row has an image, audio or a video.
    """
    unread = tuple(
        key
        for key, value in row.items()
        if key not in read and filled(value) and not (isinstance(value, str) and value in texts)
    )
    for key in unread:
        if key.lower() in MEDIA:
            raise RowError("unsupported_content", f"the key {quoted(key)} has content")
    return unread


def unread_in_turns(
    turns: Sequence[Any], read: Container[str], more: Callable[[dict[str, Any]], Iterator[str]]
) -> Iterator[str]:
    """The keys of turns, and of the parts of their contents, that have content and are not in `read`.

    Args:
        more: other keys of a turn that are not applied.
    """
    for turn in turns:
        fields = cast("dict[str, Any]", turn)
        if len(fields) > 2:
            yield from (f"turns[].{key}" for key in (*unread_keys(fields, read), *more(fields)))
        content = fields.get("content", fields.get("value"))
        if isinstance(content, list):
            for part in cast("list[Any]", content):
                if isinstance(part, dict):
                    found = unread_keys(cast("dict[str, Any]", part), ("type", "text"))
                    yield from (f"turns[].content[].{key}" for key in found)


def is_metadata(key: str) -> bool:
    """Whether a key that was not read describes the row only."""
    return key.rpartition(".")[2].lower() in METADATA
