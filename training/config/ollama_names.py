"""Names of models as Ollama has them: `[host/][namespace/]model[:tag]`, upper and lower case alike."""

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
        given: as it was written.
        full: host, namespace, model and tag in lower case; names of one model have the same.
    """

    given: str
    full: tuple[str, str, str, str]

    def __str__(self) -> str:
        return self.given

    def is_among(self, names: list[str]) -> bool:
        """Whether one of the names is this model's."""
        return any(_full(name) == self.full for name in names)


def model_name(given: str) -> ModelName:
    """The name, if Ollama takes it.

    Raises:
        OllamaError: it does not.
    """
    full = _full(given)
    if full is None:
        raise OllamaError(
            f"name: Ollama has no models with a name like {given[:100]!r}.",
            hint="Use letters, digits, '-', '_' and '.', at most 80, e.g. my-model or me/my-model:v2; "
            "it begins with a letter, a digit or '_'.",
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
