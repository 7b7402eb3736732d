"""Ollama model names: `[host/][namespace/]model[:tag]`, not case-sensitive."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from ..errors import OllamaError
from ..untrusted import quoted

LONGEST_PART = 80
DEFAULTS = ("registry.ollama.ai", "library", "latest")
SOURCES = (":local", ":cloud", "-cloud")
"""Ends that a server takes for the place to look in, and cuts off, except when it creates a model."""
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

    def beside(self, mark: str) -> str:
        """A name of the same model with another tag, which contains `mark`."""
        host, namespace, model, tag = self.full
        place = "" if host == DEFAULTS[0] else f"{host}/"
        return f"{place}{namespace}/{model}:{tag[: LONGEST_PART - len(mark) - 1]}-{mark}"

    def is_among(self, names: Iterable[str]) -> bool:
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
            f"name: {quoted(given)} is not a valid Ollama model name.",
            hint="Use letters, digits, '-', '_' and '.', at most 80 characters, e.g. my-model or "
            "me/my-model:v2; the first character is a letter, a digit or '_'.",
        )
    source = next((end for end in SOURCES if given.lower().endswith(end)), None)
    if source:
        raise OllamaError(
            f"name: Ollama reads {source!r} at the end of {quoted(given)} as a place: it would ask another "
            "model, here or in the cloud.",
            hint=f"Use a name such as {_otherwise(given, source)}.",
        )
    return ModelName(given, full)


def _otherwise(given: str, source: str) -> str:
    return f"{given[: -len(source)]}-{source[1:]}-v1"


def _full(name: str) -> tuple[str, str, str, str] | None:
    found = NAME.fullmatch(name)
    if found is None:
        return None
    host, namespace, tag = (
        found[part] or default for part, default in zip(("host", "namespace", "tag"), DEFAULTS, strict=True)
    )
    return host.lower(), namespace.lower(), found["model"].lower(), tag.lower()
