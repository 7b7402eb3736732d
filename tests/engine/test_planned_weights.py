"""The plan's count of a decoder's tensors beside the tensors themselves, of models in their real sizes."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from backpropagate.training.config.specs import LoraGroup
from backpropagate.training.engine.packed.decoder import PackedDecoder
from backpropagate.training.engine.packed.decoder_config import DecoderConfig, read_decoder_config
from backpropagate.training.engine.packed.open_decoder import make_decoder
from backpropagate.training.engine.packed.weight_layouts import layer_layouts
from backpropagate.training.planning.decoder_shape import decoder_shape
from backpropagate.training.planning.memory import CUBLAS_WORKSPACE, packed_memory

META, LORA = torch.device("meta"), LoraGroup(r=16)
PERIOD_5 = ["sliding_attention"] * 4 + ["full_attention"]
MODELS: dict[str, dict[str, Any]] = {
    "qwen3 0.6b": dict(
        model_type="qwen3", hidden_size=1024, num_hidden_layers=28, num_attention_heads=16,
        num_key_value_heads=8, intermediate_size=3072, vocab_size=151936, head_dim=128,
    ),
    "gemma 4 e4b": dict(
        model_type="gemma4_text", hidden_size=2560, num_hidden_layers=42, num_attention_heads=8,
        num_key_value_heads=2, intermediate_size=10240, num_kv_shared_layers=18,
    ),
    "gemma 4 e2b": dict(
        model_type="gemma4_text", hidden_size=1536, num_hidden_layers=35, num_attention_heads=8,
        num_key_value_heads=1, intermediate_size=6144, num_kv_shared_layers=20, use_double_wide_mlp=True,
        layer_types=PERIOD_5 * 7,
    ),
    "gemma 4 31b": dict(
        model_type="gemma4_text", hidden_size=5376, num_hidden_layers=60, num_attention_heads=32,
        num_key_value_heads=16, intermediate_size=21504, attention_k_eq_v=True, num_global_key_value_heads=4,
        hidden_size_per_layer_input=0,
    ),
    "gemma 4 26b": dict(
        model_type="gemma4_text", hidden_size=2816, num_hidden_layers=30, num_attention_heads=16,
        num_key_value_heads=8, intermediate_size=2112, attention_k_eq_v=True, num_global_key_value_heads=2,
        hidden_size_per_layer_input=0, enable_moe_block=True, num_experts=128, top_k_experts=8,
        moe_intermediate_size=704,
    ),
}  # fmt: skip


def described(name: str) -> DecoderConfig:
    from transformers import AutoConfig

    entries = {**MODELS[name]}
    return read_decoder_config(AutoConfig.for_model(entries.pop("model_type"), **entries))


def held(decoder: PackedDecoder) -> int:
    """Bytes of all tensors that a decoder refers to; each storage once."""
    found: dict[int, int] = {}
    seen: set[int] = set()

    def look(thing: Any) -> None:
        if id(thing) in seen:
            return
        seen.add(id(thing))
        if isinstance(thing, torch.Tensor):
            storage = thing.untyped_storage()
            found[storage._cdata] = storage.nbytes()
            return
        inside: Any = thing if isinstance(thing, list | tuple) else getattr(thing, "__dict__", {}).values()
        for each in thing.values() if isinstance(thing, dict) else inside:
            look(each)

    look(decoder)
    return sum(found.values())


@pytest.mark.parametrize("in_4bit", [False, True], ids=["whole", "4 bits"])
@pytest.mark.parametrize("name", MODELS)
def test_the_planned_weights_are_those_of_the_decoder(name: str, in_4bit: bool) -> None:
    config = described(name)
    layouts = layer_layouts(config, torch.bfloat16, in_4bit=True, stored={}) if in_4bit else None
    decoder = make_decoder(config, LORA, torch.bfloat16, META, layouts)
    shape = decoder_shape(MODELS[name])
    memory = packed_memory(shape, LORA, in_4bit=in_4bit)
    planned = memory.weights(None) - memory.moments - CUBLAS_WORKSPACE
    assert held(decoder) == pytest.approx(planned, rel=2e-3)
    assert sum(m.in_features * LORA.r + m.out_features * LORA.r for m in decoder.lora.modules()) * 4 == (
        memory.values
    )
