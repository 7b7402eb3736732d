"""Ollama model names: `[host/][namespace/]model[:tag]`, not case-sensitive."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..errors import OllamaError

DEFAULTS = ("registry.ollama.ai", "library", "latest")
NAME = re.compile(
    r"""(?:(?:(?P<host>[A-Za-z0-9_][A-Za-z0-9_.:-]{0,349})/)?
           (?P<namespace>[A-Za-z0-9_][A-Za-z0-9_-]{0,79})/)?
        (?P<model>[A-Za-z0-9_][A-Za-z0-9_.-]{0,79})
        (?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}))?""",
    re.VERBOSE | re.ASCII,
)


@dataclass(frozen=True)
class ModelName:
    """A model's name.

    Args:
        given: as the user wrote it.
        full: host, namespace, model and tag in lower case; equal for all names of one model.
    """

    given: str
    full: tuple[str, str, str, str]

    def __str__(self) -> str:
        return self.given

    def is_among(self, names: list[str]) -> bool:
        """Whether one of the names refers to this model."""
        return any(_full(name) == self.full for name in names)


def model_name(given: str) -> ModelName:
    """The name, checked.

    Raises:
        OllamaError: it is not a valid Ollama name.
    """
    full = _full(given)
    if full is None:
        raise OllamaError(
            f"name: {given[:100]!r} is not a valid Ollama model name.",
            hint="Use letters, digits, '-', '_' and '.', at most 80 characters, e.g. my-model or "
            "me/my-model:v2; the first character is a letter, a digit or '_'.",
        )
    return ModelName(given, full)


def _full(name: str) -> tuple[str, str, str, str] | None:
    found = NAME.fullmatch(name)
    if found is None:
        return None
    host, namespace, tag = (
        found[part] or default for part, default in zip(("host", "namespace", "tag"), DEFAULTS, strict=True)
    )
    return host.lower(), namespace.lower(), found["model"].lower(), tag.lower()
