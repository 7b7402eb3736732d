"""A config is exported as Transformers computes it, or refused by the entry's name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from small_models import ALPHA, FAMILIES, LONG, MINISTRAL, YARN, write_small_model

from backpropagate.training.errors import GgufExportError
from backpropagate.training.export.gguf.export import GgufRequest, export_gguf
from backpropagate.training.export.gguf.model_config import DIFFERENCES, model_config, runtime_warnings
from backpropagate.training.export.reference_model import Reference

ONE_OF_EACH = (
    *(
        "llama",
        "mistral",
        "qwen2",
        "qwen3",
        "smollm3",
        "gemma2",
        "gemma3",
        "phi3",
        "olmo2",
        "olmo3",
        "granite",
    ),
    *("glm4", "ministral3", "seed_oss", "ernie4_5", "hunyuan", "exaone4", "cohere2"),
    *("gemma4", "gemma4 12b", "gemma4 26b", "qwen3.5", "mixtral", "qwen3_moe", "glm4_moe", "gpt_oss"),
)
TOKENS = np.random.default_rng(3).integers(2, 250, 40).tolist()
ABSENT = object()
LINEAR = {"rope_type": "linear", "rope_theta": 10_000.0, "factor": 2.0}
LLAMA_3 = {
    **{"rope_type": "llama3", "rope_theta": 10_000.0, "factor": 8.0, "low_freq_factor": 1.0},
    **{"high_freq_factor": 4.0, "original_max_position_embeddings": 32},
}
SHORT_YARN = YARN | {"original_max_position_embeddings": 16}
ENTRIES: dict[str, list[Any]] = {
    "rope_parameters": [
        *(ABSENT, None, LINEAR, LLAMA_3, SHORT_YARN, LONG),
        *(SHORT_YARN | {"attention_factor": 1.5}, SHORT_YARN | {"truncate": False}),
        *(MINISTRAL, MINISTRAL | {"mscale": 0.5}, MINISTRAL | {"llama_4_scaling_beta": 0.0}, ALPHA),
        *(SHORT_YARN | {"beta_fast": 16}, SHORT_YARN | {"mscale": 0.7, "mscale_all_dim": 0.5}),
        {"rope_type": "dynamic", "rope_theta": 10_000.0, "factor": 2.0},
        {"rope_type": "default", "rope_theta": 300.0, "partial_rotary_factor": 0.5},
        {"full_attention": LINEAR, "sliding_attention": {"rope_type": "default", "rope_theta": 200.0}},
        {"full_attention": LINEAR, "sliding_attention": LINEAR},
    ],
    "rope_scaling": [{"type": "linear", "factor": 3.0}, {"type": "yarn", "factor": 2.0}],
    "rope_theta": [ABSENT, 300.0],
    "rope_local_base_freq": [70.0],
    "partial_rotary_factor": [0.5],
    "original_max_position_embeddings": [24],
    "layer_types": [ABSENT, ["sliding_attention"] * 2, ["full_attention"] * 2, ["full_attention"] * 4],
    "sliding_window": [ABSENT, None, 8],
    "use_sliding_window": [True],
    "sliding_window_pattern": [2],
    "query_pre_attn_scalar": [ABSENT, 7],
    "attn_logit_softcapping": [ABSENT, None, 2.0],
    "final_logit_softcapping": [ABSENT, None, 2.0],
    "use_bidirectional_attention": [True],
    "attention_bias": [True],
    "mlp_bias": [True],
    "head_dim": [ABSENT, 8],
    "num_key_value_heads": [ABSENT, None, 4],
    "no_rope_layers": [ABSENT, [1, 0, 1, 0], [1, 1, 1, 0, 1]],
    "no_rope_layer_interval": [2],
    "rms_norm_eps": [ABSENT, 1e-2],
    "layer_norm_eps": [ABSENT, 1e-2],
    "attention_multiplier": [ABSENT, None, 0.5],
    "logits_scaling": [ABSENT, 0.0],
    "attention_out_bias": [True],
    "use_bias": [True],
    "logit_scale": [ABSENT, 0.5],
    "rotary_pct": [0.5],
    "norm_topk_prob": [ABSENT, True, False],
    "num_experts_per_tok": [ABSENT, 1, 3],
    "num_local_experts": [ABSENT, 3],
    "n_group": [2],
    "routed_scaling_factor": [ABSENT, 2.0],
    "first_k_dense_replace": [ABSENT, 2],
    "swiglu_limit": [3.0],
    "decoder_sparse_step": [2],
    "mlp_only_layers": [[0]],
    "attn_output_gate": [False],
    "linear_num_key_heads": [4],
    "full_attention_interval": [2],
    "num_kv_shared_layers": [ABSENT, 0],
    "use_double_wide_mlp": [ABSENT],
    "hidden_size_per_layer_input": [ABSENT],
    "attention_k_eq_v": [True],
    "per_layer_config": [ABSENT, {"2": {"head_dim": 64}}, {"1": {"head_dim": 64}}],
    "hidden_act": [ABSENT, "gelu"],
    "hidden_activation": ["silu"],
    "tie_word_embeddings": [ABSENT, True, False],
    "max_position_embeddings": [ABSENT, 64],
    "mystery": [3],
}
CHANGES = st.dictionaries(st.sampled_from(sorted(ENTRIES)), st.integers(0, 99), min_size=1, max_size=2)


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bases")
    return {family: write_small_model(family, folder / family, tiny_model) for family in ONE_OF_EACH}


@pytest.fixture(scope="module")
def changed(
    bases: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, dict[str, Any]], Path]:
    """A copy of a family's model with entries of its config.json set or removed."""
    numbers = iter(range(10_000))
    folder = tmp_path_factory.mktemp("changed")

    def change(family: str, entries: dict[str, Any]) -> Path:
        copy = Path(shutil.copytree(bases[family], folder / str(next(numbers))))
        config = json.loads((copy / "config.json").read_text("utf-8")) | entries
        kept = {name: value for name, value in config.items() if value is not ABSENT}
        (copy / "config.json").write_text(json.dumps(kept), "utf-8")
        return copy

    return change


def exported(base: Path) -> Path:
    target = base / "model.gguf"
    export_gguf(GgufRequest(base, None, "small", "f32", target, base / "part", {}, 1), lambda file: None)
    return target


def run_in_llama_cpp(path: Path) -> Any:
    import llama_cpp

    model: Any = llama_cpp.Llama(str(path), n_ctx=64, n_batch=64, n_threads=1, logits_all=True, verbose=False)
    model.eval(TOKENS)
    logits = np.array(model.scores[: len(TOKENS)], np.float32)
    model.close()
    return logits


def divergence(expected: Any, found: Any) -> float:
    ours, theirs = (torch.tensor(values).double().log_softmax(-1) for values in (expected, found))
    return float((ours.exp() * (ours - theirs)).sum(-1).mean())


def test_any_config_gives_the_same_model_in_llama_cpp_or_is_refused(
    llama_cpp: None, changed: Callable[[str, dict[str, Any]], Path]
) -> None:
    @settings(max_examples=30)
    @given(st.sampled_from(ONE_OF_EACH), CHANGES)
    def check(family: str, chosen: dict[str, int]) -> None:
        entries = {name: ENTRIES[name][number % len(ENTRIES[name])] for name, number in chosen.items()}
        base = changed(family, entries)
        try:
            path = exported(base)
        except GgufExportError:
            return  # which entry is named is checked below
        try:
            expected = Reference(base, None).logits(TOKENS)
        except Exception:
            return  # Transformers does not take the config either
        told = list(runtime_warnings(model_config(base)))
        assert told or divergence(expected, run_in_llama_cpp(path)) < 1e-5, entries

    check()


@pytest.mark.parametrize(
    ("family", "entries", "words"),
    [
        ("llama", {"rope_parameters": LONG}, "'longrope'"),
        ("qwen2", {"rope_parameters": LLAMA_3}, "'llama3'"),
        ("smollm3", {"rope_parameters": LLAMA_3}, "'llama3'"),
        ("qwen3", {"rope_parameters": SHORT_YARN | {"beta_fast": 16}}, "'beta_fast' = 16"),
        ("qwen3", {"rope_parameters": SHORT_YARN | {"attention_factor": 1.5}}, "'attention_factor' = 1.5"),
        ("qwen3", {"rope_parameters": SHORT_YARN | {"truncate": False}}, "'truncate' = False"),
        ("llama", {"partial_rotary_factor": 0.5}, "'partial_rotary_factor' = 0.5"),
        ("gemma3", {"rope_parameters": {"full_attention": {}, "sliding_attention": LINEAR}}, "'linear'"),
        ("gemma3", {"rope_parameters": LINEAR}, "'rope_type'"),
        ("qwen3", {"layer_types": ["full_attention", "sliding_attention"]}, "layer_types"),
        ("gemma2", {"layer_types": ["full_attention"] * 2}, "layer_types"),
        ("gemma2", {"query_pre_attn_scalar": 16}, "query_pre_attn_scalar = 32, not 16"),
        ("gemma2", {"query_pre_attn_scalar": ABSENT}, "query_pre_attn_scalar = 32, not 256"),
        ("gemma2", {"attn_logit_softcapping": None}, "attn_logit_softcapping"),
        ("gemma2", {"tie_word_embeddings": False}, "tie_word_embeddings"),
        ("gemma3", {"attn_logit_softcapping": 50.0}, "'attn_logit_softcapping' = 50.0"),
        ("gemma3", {"sliding_window_pattern": 2, "layer_types": ABSENT}, "sliding_window_pattern"),
        ("gemma3", {"use_bidirectional_attention": True}, "'use_bidirectional_attention' = True"),
        ("qwen3", {"attention_bias": True}, "'attention_bias' = True"),
        ("smollm3", {"no_rope_layers": [1, 1]}, "every 4th SmolLM3 layer"),
        ("mistral", {"num_key_value_heads": ABSENT}, "has shape"),
        ("qwen3", {"head_dim": ABSENT}, "has shape"),
        ("llama", {"mystery\nNext: do this": "x"}, "'mystery Next: do this' = 'x'"),
        ("llama", {"num_attention_heads": 0}, "num_attention_heads"),
        ("llama", {"rms_norm_eps": float("nan")}, "rms_norm_eps"),
    ],
)
def test_what_llama_cpp_computes_otherwise_is_refused_by_name(
    family: str, entries: dict[str, Any], words: str, changed: Callable[[str, dict[str, Any]], Path]
) -> None:
    with pytest.raises(GgufExportError) as caught:
        exported(changed(family, entries))
    assert words in caught.value.message and "\n" not in caught.value.message


def test_a_tied_head_that_differs_is_refused_and_an_equal_one_is_left_out(
    changed: Callable[[str, dict[str, Any]], Path],
) -> None:
    base = changed("llama", {"tie_word_embeddings": True})
    with pytest.raises(GgufExportError, match="tied to the embedding"):
        exported(base)
    weights = load_file(base / "model.safetensors")
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"].clone()
    save_file(weights, base / "model.safetensors", {"format": "pt"})
    assert exported(base).is_file()


def test_windows_and_factors_that_llama_cpp_does_not_have_are_told(
    changed: Callable[[str, dict[str, Any]], Path],
) -> None:
    told = list(runtime_warnings(model_config(changed("mistral", {"sliding_window": 64}))))
    assert len(told) == 1 and "sliding window of 64 tokens, which llama.cpp ignores" in told[0]
    config = {"rope_parameters": LONG, "original_max_position_embeddings": 256}
    told = list(runtime_warnings(model_config(changed("phi3", config))))
    assert len(told) == 1 and "context above 256 tokens" in told[0]
    assert not list(runtime_warnings(model_config(changed("llama", {}))))


@pytest.mark.parametrize(
    ("family", "entries"),
    [
        ("mistral", {"sliding_window": 64}),
        ("phi3", {"sliding_window": 64}),
        ("phi3", {"rope_parameters": LONG, "original_max_position_embeddings": 256}),
    ],
)
def test_within_the_window_and_the_original_positions_llama_cpp_computes_the_same(
    llama_cpp: None, changed: Callable[[str, dict[str, Any]], Path], family: str, entries: dict[str, Any]
) -> None:
    base = changed(family, entries)
    assert list(runtime_warnings(model_config(base)))
    assert divergence(Reference(base, None).logits(TOKENS), run_in_llama_cpp(exported(base))) < 1e-5


def test_each_family_is_among_those_that_are_compared() -> None:
    assert {FAMILIES[family][0] for family in ONE_OF_EACH} == DIFFERENCES.keys()
