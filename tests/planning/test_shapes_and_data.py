"""Sizes of models, and lengths of examples, without torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_configs import config_of
from transformers import GPT2Config, Qwen2Config, Qwen3Config

from backpropagate.training.config.results import InspectResult
from backpropagate.training.config.specs import DataGroup, LoraGroup, TrainSpec
from backpropagate.training.errors import ModelLoadError
from backpropagate.training.models.llama_like import check_target_modules
from backpropagate.training.models.presets import PRESETS
from backpropagate.training.planning.batches import RunBatches
from backpropagate.training.planning.choices import choose
from backpropagate.training.planning.data_facts import DataFacts, facts_of, lengths_like
from backpropagate.training.planning.decoder_shape import decoder_shape
from backpropagate.training.planning.engine_choice import why_not_packed
from backpropagate.training.planning.expert_targets import targets_with_experts
from backpropagate.training.planning.machine import Machine
from backpropagate.training.planning.memory import GIB, packed_memory
from backpropagate.training.planning.model_facts import preset_shape


@pytest.mark.parametrize("name", PRESETS)
def test_a_presets_known_sizes_have_as_many_weights_as_it_says(name: str) -> None:
    shape = preset_shape(name)
    estimated = 0.15  # of layers that are not known: Qwen 3.5's, Gemma 4's
    assert shape.billions == pytest.approx(PRESETS[name].billions, rel=0.01 if shape.exact else estimated)
    assert list(PRESETS.values()) == sorted(PRESETS.values(), key=lambda preset: preset.billions)


EXPERTS: dict[str, tuple[float, dict[str, Any]]] = {
    "Qwen3-30B-A3B": (
        30.53,
        {"model_type": "qwen3_moe", "num_experts": 128, "num_hidden_layers": 48, "head_dim": 128},
    ),
    "gpt-oss-20b": (20.91, {"model_type": "gpt_oss", "num_hidden_layers": 24, "num_local_experts": 32}),
    "gpt-oss-120b": (116.79, {"model_type": "gpt_oss"}),
    "Mixtral-8x7B": (46.70, {"model_type": "mixtral"}),
    "GLM-4.5-Air": (106.85, {"model_type": "glm4_moe", "head_dim": 128}),
    "Qwen1.5-MoE-A2.7B": (14.32, {"model_type": "qwen2_moe"}),
}


@pytest.mark.parametrize("name", EXPERTS)
def test_published_models_with_experts_have_as_many_weights_as_they_say(name: str) -> None:
    billions, config = EXPERTS[name]
    assert decoder_shape(config).billions == pytest.approx(billions, abs=0.01)


@pytest.mark.parametrize("name", ["Qwen3-30B-A3B", "gpt-oss-20b"])
def test_a_model_with_experts_streams_in_4_bits_through_16_gb(name: str) -> None:
    shape = decoder_shape(EXPERTS[name][1])
    memory = packed_memory(shape, LoraGroup(), in_4bit=True)
    assert memory.peak(0, "everything", 4096, 2048) < 8 * GIB < memory.weights(None)
    assert memory.peak(0, "gate_up", 4096, 2048) < 15 * GIB


@pytest.mark.parametrize("name", EXPERTS)
def test_the_targets_that_also_train_experts_are_those_that_the_model_has(name: str, tmp_path: Path) -> None:
    _, config = EXPERTS[name]
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    names = targets_with_experts(config, LoraGroup())
    assert names and {"q_proj", "experts.gate_up_proj", "experts.down_proj"} <= set(names)
    check_target_modules(tmp_path, names)
    asked = LoraGroup(target_modules=names)
    assert why_not_packed(config, lora=asked) is None
    stored = {**config, "quantization_config": {"quant_method": "mxfp4"}}
    assert targets_with_experts(stored, LoraGroup()) is None, "no export could have it"


def test_gpt_oss_takes_what_mxfp4_takes() -> None:
    _, config = EXPERTS["gpt-oss-20b"]
    shape = decoder_shape({**config, "quantization_config": {"quant_method": "mxfp4"}})
    assert 13 < shape.stored_bytes / 1e9 < 14.5
    assert packed_memory(shape, LoraGroup(), in_4bit=False).layer * 24 < shape.stored_bytes


def test_entries_that_a_config_lacks_have_transformers_defaults() -> None:
    for config in (Qwen2Config(), Qwen3Config()):
        whole = decoder_shape(config.to_dict())
        assert decoder_shape({"model_type": config.model_type}) == whole
    assert decoder_shape(GPT2Config().to_dict()).billions == pytest.approx(0.124, rel=0.1)


@pytest.mark.parametrize("size", [None, 0, -1, 2**40, "64", 1.5, True, [64]])
def test_a_config_without_a_possible_size_is_refused_by_the_entry(size: Any) -> None:
    with pytest.raises(ModelLoadError, match=r"config.json: num_hidden_layers is "):
        decoder_shape({"model_type": "own", "hidden_size": 64, "num_attention_heads": 2,
                       "vocab_size": 100, "num_hidden_layers": size})  # fmt: skip


GEMMA_4: dict[str, Any] = {"model_type": "gemma4_text", "num_hidden_layers": 12, "hidden_size": 64}
WRONG_LAYERS: list[dict[str, Any]] = [
    {"per_layer_config": [5]},
    {"per_layer_config": {"5": 512}},
    {"per_layer_config": {"five": {"head_dim": 512}}},
    {"global_head_dim": "512"},
    {"global_head_dim": -512},
    {"layer_types": ["full_attention"]},
    {"num_kv_shared_layers": 12},
    {"num_kv_shared_layers": -1},
    {"num_kv_shared_layers": "2"},
]


@pytest.mark.parametrize("entries", WRONG_LAYERS, ids=str)
def test_layers_of_sizes_that_no_model_has_are_refused(entries: dict[str, Any]) -> None:
    assert decoder_shape(GEMMA_4).exact
    with pytest.raises(ModelLoadError, match=r"config\.json: "):
        decoder_shape({**GEMMA_4, **entries})


def test_layers_that_use_earlier_keys_project_none() -> None:
    shape = decoder_shape({**GEMMA_4, "num_kv_shared_layers": 6, "use_double_wide_mlp": True})
    assert [kind.num_layers for kind in shape.kinds] == [5, 1, 5, 1]
    assert [kind.heads.keys_of for kind in shape.kinds] == [None, None, 4, 5]
    assert [kind.heads.head_dim for kind in shape.kinds] == [256, 512, 256, 512]
    assert [kind.intermediate_size for kind in shape.kinds] == [9216, 9216, 18432, 18432]
    assert all("k_proj" not in kind.linears[0].outputs for kind in shape.kinds[2:])


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
ENTRIES = (
    *config_of("7b"),
    *("quantization_config", "rope_scaling", "rope_parameters", "layer_types", "text_config", "head_dim"),
    *("max_position_embeddings", "attention_dropout"),
)


@given(st.dictionaries(st.sampled_from(ENTRIES), ANYTHING, max_size=3))
def test_whatever_a_config_holds_it_is_planned_or_refused(entries: dict[str, Any]) -> None:
    config = {**config_of("7b"), **entries}
    machine = Machine("cuda", 8 * GIB, 1, total_gpu_bytes=9 * GIB)
    try:
        choose(TrainSpec(), config, decoder_shape(config), machine, DataFacts(9, 0, [9] * 9, None, ""))
    except ModelLoadError as error:
        assert error.message.startswith("config.json: ")


QUANTILES = st.lists(st.integers(1, 4000), min_size=4, max_size=4).map(sorted)


@given(QUANTILES, st.integers(1, 3000), st.floats(0.1, 1.5))
def test_a_sample_of_lengths_stays_within_what_was_seen(
    quantiles: list[int], rows: int, share: float
) -> None:
    median, p90, p99, most = quantiles
    found = {"median": median, "p90": p90, "p99": p99, "max": most, "total": round(rows * median * share)}
    sample = lengths_like(found, rows, limit=2048)
    assert sample and all(1 <= length <= min(most, 2048) for length in sample)
    assert max(sample) == min(most, 2048)


def test_the_mean_of_a_sample_is_that_of_the_dataset() -> None:
    found = {"median": 350, "p90": 1100, "p99": 2048, "max": 2048, "total": 489_000}
    sample = lengths_like(found, 1000, limit=4096)
    assert sum(sample) / len(sample) == pytest.approx(489, rel=0.03)


def test_without_a_tokenizer_the_size_of_the_files_is_used_and_said() -> None:
    facts = facts_of(InspectResult(rows=100, usable=100, held_out=8, size_bytes=40_000), DataGroup())
    assert facts.examples == 92 and facts.tokens == pytest.approx(9200)
    assert "estimate of 4 bytes a token" in facts.how


@given(st.lists(st.integers(1, 300), min_size=1, max_size=60), st.integers(1, 9), st.integers(16, 500))
def test_the_largest_micro_batch_is_that_of_the_steps(
    lengths: list[int], examples: int, capacity: int
) -> None:
    largest = RunBatches(lengths, examples=examples).largest(capacity).tokens
    assert max(lengths) <= largest <= max(max(lengths), capacity) + 63
    padded = RunBatches(lengths, examples=examples, padded=True).largest(capacity).tokens
    assert padded >= max(lengths)
