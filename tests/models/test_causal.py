"""Models that do not write text from left to right are refused from their config.json alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from backpropagate.training.config.specs import LoraGroup, ModelGroup
from backpropagate.training.engine.select_engine import select_engine
from backpropagate.training.errors import InputError
from backpropagate.training.models.causal import DECODERS_IF, OTHER_KINDS, why_not_causal
from backpropagate.training.planning.model_facts import model_facts

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 64}


def folder_of(config: dict[str, Any], folder: Path) -> Path:
    (folder / "config.json").write_text(json.dumps({**SIZES, **config}))
    save_file({"weight": torch.zeros(1)}, folder / "model.safetensors")
    return folder


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "an encoder": ({"model_type": "bert"}, "it is an encoder, whose attention sees later tokens"),
    "an encoder with a decoder": (
        {"model_type": "bart", "is_encoder_decoder": True, "d_model": 32}, "it is an encoder with a decoder",
    ),
    "a Gemma for embeddings": (
        {"model_type": "gemma3_text", "use_bidirectional_attention": True}, "its attention sees later tokens",
    ),
    "an image model's language model": (
        {"model_type": "paligemma", "text_config": {"use_bidirectional_attention": True, **SIZES}},
        "its attention sees later tokens",
    ),
    "music": ({"model_type": "musicgen"}, "it writes sound"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_causal_language_model_is_refused_where_it_is_planned(kind: str, tmp_path: Path) -> None:
    config, reason = REFUSED[kind]
    folder = folder_of(config, tmp_path)
    with pytest.raises(InputError, match=f"is no causal language model: {reason}"):
        model_facts(ModelGroup(name=str(folder)), tmp_path, ask_hub=False)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("roberta", "it is an encoder"), ("deberta-v2", "transformers has none of this type")],
)
def test_what_is_no_causal_language_model_is_refused_before_it_is_loaded(
    kind: str, reason: str, tmp_path: Path
) -> None:
    folder = folder_of({"model_type": kind}, tmp_path)
    with pytest.raises(InputError, match=reason):
        select_engine(folder, LoraGroup(), load_in_4bit=False, max_seq_length=64)


def test_an_encoder_that_was_made_a_decoder_is_not_refused() -> None:
    for kind, entry in DECODERS_IF.items():
        assert why_not_causal({"model_type": kind, entry: True}) is None


def test_models_that_are_refused_are_models_that_transformers_would_train() -> None:
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
    )

    trained = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.keys() | MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES.keys()
    assert DECODERS_IF.keys() | OTHER_KINDS.keys() <= trained
