"""The chat templates in a tokenizer's folder: texts, never rendered here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...errors import GgufExportError
from ...untrusted import shown_path
from .folder import TokenizerFolder, read_limited_bytes, read_limited_json

ADDITIONAL = "additional_chat_templates"
"""A folder of further templates; where there is one, templates in tokenizer_config.json are not read."""


def chat_templates(folder: TokenizerFolder) -> dict[str, str]:
    """The templates by name, as transformers finds them; "default" is the one for conversations.

    Raises:
        GgufExportError: a template is not text.
    """
    path = folder.path / "chat_template.jinja"
    default = {"default": _text(path)} if path.is_file() else {}
    others = sorted((folder.path / ADDITIONAL).glob("*.jinja"))
    if default or others:
        return default | {other.stem: _text(other) for other in others}
    legacy = read_limited_json(folder.path / "chat_template.json")
    template: Any = legacy.get("chat_template") or folder.config.get("chat_template") or {}
    if isinstance(template, str):
        return {"default": template}
    try:
        return {str(item["name"]): _checked(item["template"]) for item in template}
    except (KeyError, TypeError) as error:
        raise GgufExportError(
            f"The chat template in {shown_path(folder.path)} is neither a string nor a list of templates.",
            cause=error,
        ) from None


def _checked(template: Any) -> str:
    if not isinstance(template, str):
        raise TypeError(f"a {type(template).__name__} is not a template")
    return template


def _text(path: Path) -> str:
    try:
        return read_limited_bytes(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise GgufExportError(
            f"{shown_path(path)} is not UTF-8: {type(error).__name__}.", cause=error, untrusted=str(error)
        ) from None
