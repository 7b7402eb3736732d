"""Which models read from left to right and write text: only these can be trained on what comes next.

Transformers has a class "for causal language modelling" for others too, and trains it without a word.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import InputError
from ..untrusted import short_name

DECODERS_IF: Mapping[str, str] = {
    **dict.fromkeys(
        (
            *("bert", "bert-generation", "big_bird", "camembert", "data2vec-text", "electra", "ernie"),
            *("megatron-bert", "reformer", "rembert", "roberta", "roberta-prelayernorm", "roc_bert"),
            *("roformer", "xlm-roberta", "xlm-roberta-xl", "xmod"),
        ),
        "is_decoder",
    ),
    "xlm": "causal",
}
"""Encoders by their `model_type`, and the entry of config.json with which one reads from left to right."""
OTHER_KINDS: Mapping[str, str] = {
    **dict.fromkeys(("musicgen", "musicgen_melody"), "it writes sound, not text"),
    **dict.fromkeys(
        ("gemma4_assistant", "gemma4_unified_assistant"), "it drafts for another model and cannot read alone"
    ),
    "cpmant": "its attention sees later tokens of a prompt",
    "prophetnet": "it predicts several tokens at once",
    "xlnet": "its attention sees later tokens",
    "git": "it describes images",
}


def require_causal(config: Mapping[str, Any]) -> None:
    """Refuse a model that is not a causal language model.

    Args:
        config: the content of config.json.

    Raises:
        InputError: it is another kind of model.
    """
    reason = why_not_causal(config)
    if reason is not None:
        raise not_causal(config.get("model_type"), reason)


def not_causal(kind: object, reason: str) -> InputError:
    """The error for a model of another kind; `reason` is part of a sentence."""
    return InputError(
        f"{short_name(kind)} is no causal language model: {reason}.",
        hint="Choose a model that writes text from left to right, such as Llama, Qwen or Gemma.",
    )


def why_not_causal(config: Mapping[str, Any]) -> str | None:
    """The reason, as part of a sentence; None if nothing speaks against it."""
    kind = str(config.get("model_type"))
    entry = DECODERS_IF.get(kind)
    if entry is not None and not config.get(entry):
        return f"it is an encoder, whose attention sees later tokens ({entry} is not set in its config.json)"
    if config.get("is_encoder_decoder"):
        return "it is an encoder with a decoder, which answers another text"
    inside: Any = config.get("text_config")
    text: Any = inside if isinstance(inside, Mapping) else config  # pyright: ignore[reportUnknownVariableType]
    if text.get("use_bidirectional_attention") in (True, "all"):
        return "its attention sees later tokens (use_bidirectional_attention in its config.json)"
    return OTHER_KINDS.get(kind)
