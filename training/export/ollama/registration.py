"""A registration: the request and the result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .effective_template import EffectiveTemplate
from .question import DEFAULT, Question


@dataclass(frozen=True)
class RegistrationRequest:
    """What to register.

    Args:
        system: system message of the model; None: the default of its chat template.
        parameters: e.g. `{"temperature": 0.2, "num_ctx": 8192}`; the model's own stop tokens are added.
        keep_template: let the server choose the chat template, whatever its version.
        overwrite: replace a model of this name.
    """

    path: Path
    name: str
    system: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict[str, Any])
    keep_template: bool = False
    overwrite: bool = False
    question: Question = DEFAULT


@dataclass(frozen=True)
class Registration:
    """A model that Ollama has now.

    Args:
        size: bytes of the file.
        uploaded: False if the server already had the file.
        template: which chat template the server uses.
        answer: of the registered model to `question`: untrusted text; None if it could not be asked.
        digest: by which the server knows what it holds under the name.
    """

    name: str
    server: str
    server_version: str
    path: Path
    size: int
    uploaded: bool
    replaced: bool
    template: EffectiveTemplate
    stop: list[str]
    system: str | None
    question: Question
    answer: str | None
    digest: str = ""
    warnings: list[str] = field(default_factory=list[str])
