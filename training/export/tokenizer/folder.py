"""A model folder's tokenizer files, read with size limits: their content is untrusted."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import Any

from ...data.readers.libraries import library
from ...errors import GgufExportError
from ...untrusted import shown_path
from .other_tokens import TokenFiles, as_transformers_loads_it, names_other_tokens, token_text

MAX_BYTES = 128 * 1024**2
"""Of one file; the largest published tokenizer.json (262,144 tokens) has 33 MB."""


class TokenizerFolder:
    """The tokenizer in a model's or adapter's folder.

    Args:
        folder: searched first for tokenizer.json.
        base: the model under an adapter: its tokenizer serves where the adapter came without one, its
            config.json and generation_config.json where the adapter has none.
        rows: of the embedding; added tokens beyond them that have no role are left out, since the model
            cannot read them (Gemma 3's text models come with one for images).

    Raises:
        GgufExportError: neither folder has a tokenizer.json, or a file cannot be read.
    """

    def __init__(self, folder: Path, base: Path | None = None, rows: int | None = None) -> None:
        self._folders = [folder, base] if base else [folder]
        found = self._find("tokenizer.json")
        if found is None:
            raise GgufExportError(
                f"There is no tokenizer.json in {shown_path(folder)}.",
                hint="Load the tokenizer with transformers' AutoTokenizer and save it: this writes the file.",
            )
        self.path = found.parent
        self.settings: dict[str, Any] = read_limited_json(found)
        self.config = read_limited_json(self.path / "tokenizer_config.json")
        text = read_limited_bytes(found).decode("utf-8", errors="replace")
        if names_other_tokens(self.settings, self.token_files()):
            text = as_transformers_loads_it(self.path)
            self.settings = json.loads(text)
        added: list[dict[str, Any]] = self.settings.get("added_tokens", [])
        readable = [token for token in added if not self._is_beyond(token, rows)]
        if len(readable) < len(added):
            self.settings = self.settings | {"added_tokens": readable}
            text = json.dumps(self.settings)
        self.tokenizer = _tokenizer(text, found)

    def token_files(self) -> TokenFiles:
        """The files beside tokenizer.json that name tokens, as far as Transformers reads them."""
        if "added_tokens_decoder" in self.config:
            return TokenFiles(self.config, {}, {})
        return TokenFiles(
            self.config,
            read_limited_json(self.path / "special_tokens_map.json"),
            read_limited_json(self.path / "added_tokens.json"),
        )

    def role_id(self, role: str) -> int | None:
        """The id of the token that the files name for a role (bos, eos, …)."""
        files = self.token_files()
        name = f"{role}_token"
        content = token_text(files.special_tokens_map.get(name, files.config.get(name)))
        return self.tokenizer.token_to_id(content) if content is not None else None

    def model_json(self, name: str) -> dict[str, Any]:
        """config.json or generation_config.json, the folder's own or the base model's; empty without one."""
        found = self._find(name)
        return read_limited_json(found) if found else {}

    @property
    def model(self) -> dict[str, Any]:
        """The `model` section of tokenizer.json: type, vocab, merges and switches."""
        return self.settings["model"]

    @cached_property
    def vocab(self) -> dict[str, int]:
        """The model's own tokens and their ids, without the added ones."""
        return self.model["vocab"]

    @cached_property
    def added_tokens(self) -> dict[int, Any]:
        """The added tokens by id: content, special, normalized, lstrip, rstrip, single_word."""
        return self.tokenizer.get_added_tokens_decoder()

    def _is_beyond(self, token: dict[str, Any], rows: int | None) -> bool:
        """Whether an added token is beyond the embedding, and neither the model's own nor one with a role."""
        if rows is None or token["id"] < rows or token["content"] in self.vocab:
            return False
        named: list[Any] = [value for key, value in self.config.items() if key.endswith("_token")]
        roles = [value.get("content") if isinstance(value, dict) else value for value in named]  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
        return token["content"] not in roles

    def _find(self, name: str) -> Path | None:
        return next((path for folder in self._folders if (path := folder / name).is_file()), None)


def read_limited_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty if there is no such file.

    Raises:
        GgufExportError: it is too large, not JSON, or not an object.
    """
    if not path.is_file():
        return {}
    try:
        content: Any = json.loads(read_limited_bytes(path))
    except (ValueError, RecursionError) as error:
        raise GgufExportError(
            f"{shown_path(path)} is not valid JSON: {type(error).__name__}.",
            cause=error,
            untrusted=str(error),
        ) from None
    if not isinstance(content, dict):
        found = type(content).__name__
        raise GgufExportError(f"{shown_path(path)} contains a {found}; an object was expected.")
    return content  # pyright: ignore[reportUnknownVariableType]


def read_limited_bytes(path: Path) -> bytes:
    """The bytes of a file.

    Raises:
        GgufExportError: there are more than `MAX_BYTES`.
    """
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise GgufExportError(
            f"{shown_path(path)} has {size:,} bytes; the limit for tokenizer files is {MAX_BYTES:,}."
        )
    return path.read_bytes()


def _tokenizer(text: str, path: Path) -> Any:
    try:
        tokenizer = library("tokenizers", "Exporting a tokenizer").Tokenizer.from_str(text)
    except Exception as error:  # what tokenizers raises has no class of its own
        raise GgufExportError(
            f"{shown_path(path)} cannot be read: {type(error).__name__}.", cause=error, untrusted=str(error)
        ) from None
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer
