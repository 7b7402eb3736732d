"""Tokens that a model has from other files than tokenizer.json: Transformers adds them when it loads it.

What is added, in which order and with which ids, is left to Transformers. It is loaded only where the other
files name a token that tokenizer.json does not have, or has otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

from ...errors import GgufExportError
from ...untrusted import shown_path

FLAGS: Mapping[str, bool] = {
    "lstrip": False,
    "rstrip": False,
    "single_word": False,
    "normalized": True,
    "special": False,
}
"""Of an added token, with the tokenizers library's defaults."""
LISTS = ("extra_special_tokens", "additional_special_tokens")


class TokenFiles(NamedTuple):
    """The content of the files that name tokens."""

    config: Mapping[str, Any]
    special_tokens_map: Mapping[str, Any]
    added_tokens: Mapping[str, Any]


def token_text(token: Any) -> str | None:
    """The text of a token that is written as a text or as an object; None if it is neither."""
    content: Any = cast("dict[str, Any]", token).get("content") if isinstance(token, dict) else token
    return content if isinstance(content, str) else None


def names_other_tokens(tokenizer: Mapping[str, Any], files: TokenFiles) -> bool:
    """Whether the files name a token that is not among tokenizer.json's added tokens as they describe it.

    True also for files of another form: what Transformers says of these is reported.
    """
    try:
        added: dict[str, Any] = {token["content"]: token for token in tokenizer.get("added_tokens", [])}
        decoder: Any = files.config.get("added_tokens_decoder") or {}
        return (
            any(_is_other(added.get(token["content"]), id, token) for id, token in decoder.items())
            or any(text not in added or added[text]["id"] != id for text, id in files.added_tokens.items())
            or any(text not in added for text in _named(files))
        )
    except (AttributeError, KeyError, TypeError):
        return True


def _is_other(known: Mapping[str, Any] | None, id: object, token: Mapping[str, Any]) -> bool:
    return known is None or str(known["id"]) != str(id) or _flags(known) != _flags(token)


def as_transformers_loads_it(folder: Path) -> str:
    """The tokenizer.json that Transformers would write for a folder, as text.

    Raises:
        GgufExportError: Transformers cannot load it.
    """
    from transformers import AutoTokenizer

    auto: Any = AutoTokenizer  # untyped in transformers
    try:
        loaded = auto.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        return loaded.backend_tokenizer.to_str()
    except Exception as error:  # what its parsers raise
        raise GgufExportError(
            f"{shown_path(folder)} names tokens that tokenizer.json does not have, and Transformers "
            f"cannot add them: {type(error).__name__}.",
            hint="Correct tokenizer_config.json, added_tokens.json or special_tokens_map.json.",
            cause=error,
            untrusted=str(error),
        ) from error


def _flags(token: Mapping[str, Any]) -> dict[str, Any]:
    special = bool(token.get("special"))
    usual = {**FLAGS, "normalized": not special}
    return {name: token.get(name, usual[name]) for name in FLAGS}


def _named(files: TokenFiles) -> Iterator[str]:
    """The texts of tokens with a role, and of further special tokens."""
    for content in (files.config, files.special_tokens_map):
        for name, value in content.items():
            if name.endswith("_token"):
                texts = [token_text(value)]
            elif name in LISTS:
                texts = [token_text(token) for token in _items(value)]
            else:
                continue
            yield from (text for text in texts if text)


def _items(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(cast("dict[str, Any]", value).values())
    return cast("list[Any]", value) if isinstance(value, list) else []
