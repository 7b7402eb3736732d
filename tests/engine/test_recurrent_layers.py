"""Hybrid and recurrent models: rows beside each other change nothing, and their speed is spoken of."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from backpropagate.training.config.specs import LoraGroup
from backpropagate.training.engine.autograd import recurrent_layers
from backpropagate.training.engine.autograd.engine import load_autograd_step
from backpropagate.training.engine.generate import Sampling, replies
from backpropagate.training.engine.loop.batch import packed_batch
from backpropagate.training.engine.open_model import open_model
from backpropagate.training.engine.padding import padding_is_unseen
from backpropagate.training.engine.plan import Example
from backpropagate.training.models.tokenizer import load_tokenizer

from .conftest import Events, a_plan, tiny_model

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

DELTA: dict[str, Any] = dict(
    linear_num_key_heads=2, linear_num_value_heads=4, linear_key_head_dim=8, linear_value_head_dim=8,
    head_dim=16, layer_types=["linear_attention", "full_attention"],
)  # fmt: skip
EXPERTS: dict[str, Any] = dict(
    num_experts=4, num_experts_per_tok=2, moe_intermediate_size=32, shared_expert_intermediate_size=32
)
MAMBA2: dict[str, Any] = dict(mamba_n_heads=4, mamba_d_head=24, mamba_d_state=8, mamba_chunk_size=8)
LATENT: dict[str, Any] = dict(
    num_key_value_heads=4, kv_lora_rank=16, q_lora_rank=None, qk_rope_head_dim=8, qk_nope_head_dim=8,
    v_head_dim=12, linear_num_heads=4, linear_head_dim=12,
)  # fmt: skip
HYBRIDS: dict[str, dict[str, Any]] = {
    "qwen3_5_text": DELTA,
    "qwen3_next": {**DELTA, **EXPERTS},
    "olmo_hybrid": DELTA,
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "mamba_d_state": 8, "mamba_dt_rank": 4},
    "falcon_h1": {**MAMBA2, "mamba_d_ssm": 96, "head_dim": 12},
    "bamba": {**MAMBA2, "attn_layer_indices": [1]},
    "granitemoehybrid": {
        **MAMBA2, "layer_types": ["linear_attention", "full_attention"], "num_local_experts": 4,
        "shared_intermediate_size": 32,
    },
    "nemotron_h": {
        "layers_block_type": ["linear_attention", "full_attention", "mlp", "linear_attention"],
        "num_hidden_layers": 4, "mamba_num_heads": 4, "mamba_head_dim": 24, "ssm_state_size": 8,
        "n_groups": 1, "chunk_size": 8, "head_dim": 12,
    },
    "zamba2": {
        "num_hidden_layers": 3, "layers_block_type": ["linear_attention", "hybrid", "linear_attention"],
        "mamba_d_state": 8, "n_mamba_heads": 4, "chunk_size": 8,
    },
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "recurrent_gemma": {"block_types": ["recurrent", "attention"], "lru_width": 48},
    "mamba2": {"num_heads": 4, "head_dim": 24, "state_size": 8, "n_groups": 1, "chunk_size": 8},
    "minimax": {
        "layer_types": ["linear_attention", "full_attention"], "num_local_experts": 2, "head_dim": 12,
    },
    "rwkv": {"attention_hidden_size": 48},
    "xlstm": {"num_heads": 4, "qk_dim_factor": 0.5, "chunk_size": 16},
}  # fmt: skip
FAST = ("qwen3_5_text", "falcon_h1", "lfm2")


@pytest.mark.parametrize(
    "family", [pytest.param(each, marks=[] if each in FAST else pytest.mark.slow) for each in HYBRIDS]
)
def test_rows_together_give_the_loss_and_gradients_of_one_at_a_time(
    family: str, examples: Callable[..., list[Example]], tmp_path: Path
) -> None:
    tiny_model(family, **HYBRIDS[family]).save_pretrained(tmp_path / "model")
    step = load_autograd_step(
        a_plan(model=tmp_path / "model", adapter=tmp_path / "adapter", lora=LoraGroup(r=4, alpha=8))
    )
    torch.manual_seed(1)
    step.lora.values.normal_(0, 0.05)
    made = examples(17, 9, 30, 3)
    batch = packed_batch(made)
    loss = step.forward_backward(batch, torch.tensor(1 / batch.label_tokens), seed=0)
    gradients = step.lora.gradients.clone()
    expected, theirs = one_at_a_time(step.model, made)
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    step.lora.gradients.zero_()
    for parameter, gradient in zip(trained(step.model), theirs, strict=True):
        parameter.grad.copy_(gradient)
    assert (gradients - step.lora.gradients).norm() <= 2e-5 * step.lora.gradients.norm()


def trained(model: Any) -> list[Any]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def one_at_a_time(model: Any, examples: list[Example]) -> tuple[float, list[torch.Tensor]]:
    """Mean loss per label token and the LoRA gradients, each example alone and unpadded."""
    labels = sum(label != -100 for example in examples for label in example.labels[1:])
    total = torch.zeros(())
    for example in examples:
        logits = model(input_ids=torch.tensor([example.input_ids]), use_cache=False).logits[0, :-1]
        total = total + F.cross_entropy(logits, torch.tensor(example.labels[1:]), reduction="sum") / labels
    gradients = torch.autograd.grad(total, trained(model), allow_unused=True)
    return total.item(), [
        torch.zeros_like(p) if g is None else g for p, g in zip(trained(model), gradients, strict=True)
    ]


@pytest.mark.parametrize("family", ["qwen3_5_text", "recurrent_gemma", "rwkv"])
def test_answers_together_are_those_of_each_prompt_alone(family: str, tiny_model_files: Path) -> None:
    model = tiny_model(family, **HYBRIDS[family])
    tokenizer = load_tokenizer(tiny_model_files)
    rows = [[5, 9, 17, 33, 21, 40, 8, 77], [9, 4], [61, 60, 3, 20, 11]]
    together = replies(model, tokenizer, rows, Sampling(max_new_tokens=5))
    alone = [replies(model, tokenizer, [row], Sampling(max_new_tokens=5))[0] for row in rows]
    assert together == alone
    assert padding_is_unseen(model) is (family == "qwen3_5_text")


@pytest.fixture
def tiny_model_files(request: pytest.FixtureRequest) -> Path:
    """The tiny model with a tokenizer that all tests share."""
    return request.getfixturevalue("tiny_model")


def test_recurrent_layers_are_said_to_be_slow_with_the_kernels_that_would_make_them_fast(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, events: Events
) -> None:
    model = tiny_model("qwen3_5_text", **DELTA)
    model.save_pretrained(tmp_path / "model")
    plan = a_plan(model=tmp_path / "model", adapter=tmp_path / "adapter", engine="autograd")
    open_model(plan, events)
    [warning] = events.of("warning")
    assert warning["message"] == (
        "This model has recurrent layers: it trains slowly, by autograd. Examples are padded, since a state "
        "would run on from one to the next."
    )
    on_gpu = recurrent_layers.slow_layers(model, "cuda", packs=False)
    assert on_gpu is not None and on_gpu.endswith("pip install flash-linear-attention causal-conv1d.")
    monkeypatch.setattr(recurrent_layers, "find_spec", lambda _: object())
    installed = recurrent_layers.slow_layers(model, "cuda", packs=False)
    assert installed is not None and "pip" not in installed


def test_a_model_of_attention_alone_has_no_slow_layers() -> None:
    assert recurrent_layers.slow_layers(tiny_model("llama"), "cuda", packs=True) is None
