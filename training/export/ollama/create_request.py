"""The request to create a model from a GGUF file: template, system message and parameters."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

from ...config.ollama_parameters import checked_parameters, with_stops
from ...errors import OllamaError
from ...next_step import then
from ...untrusted import quoted
from .failures import UPDATE
from .go_template import go_template, lays_out_as
from .model_file import ModelFile
from .registration import RegistrationRequest
from .template_parts import TemplateParts, TemplateUnknownError, template_parts

FILES_SINCE = (0, 5, 5)
JINJA_SINCE = (0, 30)


@dataclass(frozen=True)
class CreateRequest:
    """A request to /api/create, but for the file.

    Args:
        body: `parameters` and, where they are needed, `system` and `template`.
        parts: of the model's own template; None if it is more than its parts.
    """

    body: dict[str, Any]
    parts: TemplateParts | None = None

    def with_own_template(self, shown: str) -> CreateRequest | None:
        """The request that also sends the model's template, if the server chose one that lays out otherwise.

        Args:
            shown: the template that the server uses, in Go.
        """
        if self.parts is None or "template" in self.body or lays_out_as(shown, self.parts):
            return None
        return replace(self, body={**self.body, "template": go_template(self.parts)})


def create_request(request: RegistrationRequest, model: ModelFile, version: str) -> CreateRequest:
    """The request for a server of this version.

    Stop tokens and a default system message are always sent: a server that replaces the model's template with
    its own would lose them.

    Raises:
        OllamaError: a parameter is unknown, or the server cannot use the model's chat template.
    """
    parts, reason = _template_parts(model)
    ends = (*model.end_tokens, *_end_of_turn(parts, model))
    body: dict[str, Any] = {"parameters": with_stops(checked_parameters(request.parameters), ends)}
    system = request.system
    if system is None and parts is not None:
        system = parts.default_system
    if system:
        body["system"] = system
    if request.keep_template:
        return CreateRequest(body)
    if release(version) >= JINJA_SINCE:
        return CreateRequest(body, parts)
    if parts is None:
        raise OllamaError(
            f"Ollama {version} does not run the chat template in {quoted(model.path.name)}, and it cannot be "
            f"translated into Ollama's template language: {reason}.",
            hint="Update Ollama to 0.30 or later, or let the server choose a template.",
            next=then("ask_again", keep_template=True),
        )
    return CreateRequest({**body, "template": go_template(parts)}, parts)


def require_files(version: str) -> None:
    """Raises OllamaError for a server that cannot create models from uploaded files."""
    if release(version) < FILES_SINCE:
        raise OllamaError(f"Ollama {version} cannot create models from uploaded files.", hint=UPDATE)


def release(version: str) -> tuple[int, ...]:
    """`0.12.3-rc1` as (0, 12, 3); what is no release, such as one's own build, counts as the newest."""
    found = re.match(r"v?(\d+)\.(\d+)(?:\.(\d+))?", version)
    numbers = tuple(int(part or 0) for part in found.groups()) if found else ()
    return numbers if any(numbers) else (10**6,)


def _template_parts(model: ModelFile) -> tuple[TemplateParts | None, str]:
    """The parts of the model's chat template, or why there are none."""
    tokens = {"bos_token": model.bos_token, "eos_token": model.eos_token}
    try:
        return template_parts(model.chat_template, **tokens, adds_bos=model.adds_bos), ""
    except TemplateUnknownError as error:
        return None, str(error)


def _end_of_turn(parts: TemplateParts | None, model: ModelFile) -> list[str]:
    """The control token that ends an assistant's turn, if one does."""
    following = parts.turn.lstrip() if parts else ""
    found = [token for token in model.control_tokens if following.startswith(token)]
    return [max(found, key=len)] if found else []
