"""The language model of a multimodal checkpoint as a model of its own: its config, its weights' names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from ..files.atomic_json import read_json
from .decoder_families import EXPORTED_ALONE, PLAIN, decoder_entries
from .safetensors_files import stored_tensors

T = TypeVar("T")

HEAD = "lm_head.weight"
FROM_OUTSIDE = ("bos_token_id", "eos_token_id", "pad_token_id", "dtype", "torch_dtype", "quantization_config")
"""Entries that a text_config may leave to the whole model's config."""


def read_text_config(folder: Path) -> dict[str, Any]:
    """A model's config.json; of a multimodal model that of its language model.

    Raises:
        OSError, ValueError, RecursionError: it cannot be read.
    """
    config = read_json(folder / "config.json")
    inside = EXPORTED_ALONE.get(str(config.get("model_type")))
    if inside is None:
        return config
    text = decoder_entries(config, EXPORTED_ALONE)
    tied = bool(config.get("tie_word_embeddings", True)) and not stores_head(folder, inside.place)
    given = {name: config[name] for name in FROM_OUTSIDE if name in config}
    architecture = {"architectures": _architectures(text["model_type"])}
    return {**given, **text, "tie_word_embeddings": tied, **architecture}


def stores_head(folder: Path, place: str) -> bool:
    """Whether the head is stored: Mistral 3 says tied where it is not, and transformers goes by this."""
    return HEAD in {name_in_model(name, place) for name in stored_tensors(folder)}


def name_in_model(stored: str, place: str) -> str:
    """The name that transformers gives to a tensor of a checkpoint, whose decoder is at `place`.

    Checkpoints of a bare decoder leave out the leading `model.`; those of multimodal models may have an older
    order of names, `language_model.model.` and `language_model.lm_head`.
    """
    if place == PLAIN:
        return stored if stored.startswith(("model.", "lm_head.")) else f"model.{stored}"
    if stored.startswith("language_model.lm_head."):
        return stored.removeprefix("language_model.")
    older = "language_model.model."
    return f"{place}.{stored.removeprefix(older)}" if stored.startswith(older) else stored


def name_in_text_model(name: str, place: str) -> str | None:
    """The name in the language model alone; None of a weight of another part.

    Args:
        name: in the whole model, or as it is stored.
    """
    if place == PLAIN:
        return name
    full = name_in_model(name, place)
    if full.startswith(f"{place}."):
        return f"{PLAIN}.{full.removeprefix(f'{place}.')}"
    return full if full == HEAD else None


def place_in(folder: Path) -> str:
    """Where the decoder is in the model of a folder.

    Raises:
        OSError, ValueError, RecursionError: its config.json cannot be read.
    """
    inside = EXPORTED_ALONE.get(str(read_json(folder / "config.json").get("model_type")))
    return PLAIN if inside is None else inside.place


def text_weights(named: Mapping[str, T], place: str) -> dict[str, T]:
    """What there is of the language model, by its names there."""
    found = ((name_in_text_model(name, place), value) for name, value in named.items())
    return {name: value for name, value in found if name is not None}


def _architectures(family: str) -> list[str]:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return [MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[family]]
