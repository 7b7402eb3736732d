"""Which chat template a server uses for a model, found from its description of the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ...untrusted import short_name

TemplateOrigin = Literal["own", "sent", "autodetected", "none", "other"]

NO_TEMPLATE = "{{ .Prompt }}"
DETECTED = "using autodetected template "
SENTENCES: dict[TemplateOrigin, str] = {
    "own": "the model's own chat template, from the GGUF",
    "sent": "the model's own chat template, in Ollama's template language",
    "autodetected": "a template of Ollama's that resembles the model's own",
    "none": "no chat template",
    "other": "a template of Ollama's",
}


@dataclass(frozen=True)
class EffectiveTemplate:
    """The template that the server uses.

    Args:
        kind: `own`: the GGUF's Jinja; `sent`: the Go template that we sent; `autodetected`: one of Ollama's
            that stands in for the Jinja; `none`: the bare text; `other`: something else.
        warning: what the user should know of it.
    """

    kind: TemplateOrigin
    sentence: str
    warning: str | None = None


def effective_template(shown: str, *, sent: str | None, own: str, steps: Sequence[str]) -> EffectiveTemplate:
    """Compare the template in /api/show with the one that was sent and the one in the GGUF.

    Args:
        steps: the server's messages while it created the model.
    """
    kind = _kind(shown.strip(), sent, own, steps)
    return EffectiveTemplate(kind, SENTENCES[kind], _warning(kind, steps))


def _kind(shown: str, sent: str | None, own: str, steps: Sequence[str]) -> TemplateOrigin:
    if sent is not None and shown == sent.strip():
        return "sent"
    if shown == own.strip():
        return "own"
    if shown in {"", NO_TEMPLATE}:
        return "none"
    return "autodetected" if sent is None and any(step.startswith(DETECTED) for step in steps) else "other"


def _warning(kind: TemplateOrigin, steps: Sequence[str]) -> str | None:
    if kind == "none":
        return (
            "The server uses no chat template for this model, so its answers will be poor. Update Ollama, or "
            "register again with keep_template off."
        )
    if kind in {"autodetected", "other"}:
        names = [short_name(step.removeprefix(DETECTED)) for step in steps if step.startswith(DETECTED)]
        name = f" ({names[0]})" if names else ""
        return (
            f"The server replaces the model's template with its own{name}. Compare its answer with "
            "the trained model's. OLLAMA_GO_TEMPLATE=false on the server makes it use the model's own."
        )
    return None
