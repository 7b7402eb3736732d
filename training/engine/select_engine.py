"""Which of our own two steps trains the model of a folder, and why."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from ..config.specs import LoraGroup
from ..errors import ModelLoadError
from ..files.atomic_json import read_json
from ..models.causal import not_causal, require_causal
from ..models.multimodal import has_language_model
from ..models.tokenizer import load_error
from ..models.transformers_config import transformers_config
from ..planning.engine_choice import own_engine


def select_engine(
    model: Path, lora: LoraGroup, *, load_in_4bit: bool, max_seq_length: int
) -> tuple[Literal["packed", "autograd"], str]:
    """packed where the model allows it, else autograd; with the reason in one sentence.

    Args:
        model: folder with config.json.
        max_seq_length: in tokens.

    Raises:
        ModelLoadError: transformers cannot read the config, or would compute something else.
        InputError: it is no causal language model.
    """
    require_readable(model)
    config = read_json(model / "config.json")
    return own_engine(config, lora, load_in_4bit=load_in_4bit, max_seq_length=max_seq_length)


def require_readable(model: Path) -> None:
    """Refuse a folder whose model cannot be trained, from its config alone.

    Raises:
        ModelLoadError: transformers cannot read the config, or would compute something else.
        InputError: it is no causal language model.
    """
    try:
        config = transformers_config(model)
    except ModelLoadError:
        raise
    except Exception as error:  # transformers raises what its parsers raise
        raise load_error(model, "model", error) from error
    require_causal(read_json(model / "config.json"))
    if not has_language_model(config):
        raise not_causal(config.model_type, "transformers has none of this type")
