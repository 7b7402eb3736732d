"""What a server is asked to make of a GGUF file: its template, system message and parameters."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from ...config.ollama_parameters import checked_parameters, with_stops
from ...errors import OllamaError
from .failures import UPDATE
from .go_template import go_template
from .model_file import ModelFile
from .registration import Request
from .template_parts import Pieces, TemplateUnknownError, probe

FILES_SINCE = (0, 5, 5)
JINJA_SINCE = (0, 30)


@dataclass(frozen=True)
class Creation:
    """A request to /api/create, but for the file.

    Args:
        body: `parameters` and, where they are needed, `system` and `template`.
        exact: whether `template` lays out every conversation as the model's own template does.
    """

    body: dict[str, Any]
    exact: bool = True


def creation(request: Request, model: ModelFile, version: str) -> Creation:
    """What to ask a server of this version for.

    Stop tokens and a default system message are always told: a server that puts a template of its own in the
    place of the model's would lose them.

    Raises:
        OllamaError: a parameter is unknown, or the server cannot use the model's chat template.
    """
    pieces, reason = _pieces(model)
    ends = (*model.end_tokens, *_end_of_turn(pieces, model))
    body: dict[str, Any] = {"parameters": with_stops(checked_parameters(request.parameters), ends)}
    system = request.system
    if system is None and pieces is not None:
        system = pieces.default_system
    if system:
        body["system"] = system
    if request.keep_template or release(version) >= JINJA_SINCE:
        return Creation(body)
    if pieces is None:
        raise OllamaError(
            f"Ollama {version} does not run the chat template in {model.path.name}, and that cannot be told "
            f"in Ollama's own template language: {reason}.",
            hint="Update Ollama to 0.30 or later, or pass keep_template=true to leave it to the server.",
        )
    return Creation({**body, "template": go_template(pieces)}, pieces.exact)


def require_files(version: str) -> None:
    """Raises OllamaError for a server that makes no models from uploaded files yet."""
    if release(version) < FILES_SINCE:
        raise OllamaError(f"Ollama {version} cannot make models from uploaded files.", hint=UPDATE)


def release(version: str) -> tuple[int, ...]:
    """`0.12.3-rc1` as (0, 12, 3); what is no release, such as one's own build, counts as the newest."""
    found = re.match(r"v?(\d+)\.(\d+)(?:\.(\d+))?", version)
    numbers = tuple(int(part or 0) for part in found.groups()) if found else ()
    return numbers if any(numbers) else (10**6,)


def _pieces(model: ModelFile) -> tuple[Pieces | None, str]:
    """The pieces of the model's chat template, or why there are none."""
    tokens = {"bos_token": model.bos_token, "eos_token": model.eos_token}
    try:
        return probe(model.chat_template, **tokens, adds_bos=model.adds_bos), ""
    except TemplateUnknownError as error:
        return None, str(error)


def _end_of_turn(pieces: Pieces | None, model: ModelFile) -> list[str]:
    """The control token that ends an assistant's turn, if one does."""
    following = pieces.turn.lstrip() if pieces else ""
    found = [token for token in model.control_tokens if following.startswith(token)]
    return [max(found, key=len)] if found else []
