"""Checkpoints of a language model with a vision part, as they are published: only the language model is used.

Modules keep the names that they have in the published model: an adapter loads into it with plain PEFT.
"""

from __future__ import annotations

from typing import Any


def is_multimodal(config: Any) -> bool:
    """Whether a transformers config is of a language model with other parts.

    Its `text_config` is then that of the language model.
    """
    from transformers import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

    return type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING and hasattr(config, "text_config")


def has_language_model(config: Any) -> bool:
    """Whether transformers has a causal language model with this config, alone or with other parts."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    return type(config) in MODEL_FOR_CAUSAL_LM_MAPPING or is_multimodal(config)


def language_model_class(config: Any) -> Any:
    """The Auto class of transformers whose model has the names of the published checkpoint."""
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    return AutoModelForImageTextToText if is_multimodal(config) else AutoModelForCausalLM


def keep_language_model(model: Any) -> None:
    """Take away what lies beside the language model of a multimodal one; without images it is not used."""
    if not is_multimodal(model.config):
        return
    decoder = model.get_decoder()
    path = next(name for name, module in model.named_modules() if module is decoder)
    parent, _, kept = path.rpartition(".")
    beside = model.get_submodule(parent)
    for name, _ in list(beside.named_children()):
        if name != kept:
            setattr(beside, name, None)
