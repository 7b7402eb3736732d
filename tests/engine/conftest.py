"""Tiny random models of every shape, and examples to train them on."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from backpropagate.training.config.specs import LoraGroup
from backpropagate.training.engine.plan import Example, Plan
from backpropagate.training.events import Event

MLP = ("gate_proj", "up_proj", "down_proj")
SIZES: dict[str, Any] = dict(
    vocab_size=128,
    hidden_size=48,
    intermediate_size=80,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=64,
    bos_token_id=1,
    eos_token_id=2,
    pad_token_id=0,
)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def tiny_model(family: str, **overrides: Any) -> Any:
    """A random fp32 model whose norms and biases are not trivial either."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **{**SIZES, **overrides})
    if family == "gemma2":
        config._attn_implementation = "eager"  # SDPA has no soft caps, and drops them in transformers 5.17
    model = AutoModelForCausalLM.from_config(config)
    for name, parameter in model.float().named_parameters():
        noise = torch.randn_like(parameter) * 0.1
        parameter.data = parameter.data + noise if parameter.dim() == 1 else noise
        if family.startswith("gemma4") and name.endswith(("q_norm.weight", "k_norm.weight")):
            parameter.data *= 0.4  # its scores are not divided by √head_dim
    for name, buffer in model.named_buffers():
        if name.endswith("e_score_correction_bias"):
            buffer.normal_(0, 0.1)
        if name.endswith("layer_scalar"):
            buffer.uniform_(0.5, 1.5)
    return model.eval()


def with_lora(model: Any, lora: LoraGroup) -> Any:
    """A copy of `model` with PEFT's LoRA, B not zero."""
    from peft import LoraConfig, get_peft_model

    modules, parameters = _targets(model, lora.target_modules)
    config = LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        use_rslora=lora.rslora,
        target_modules=modules,
        target_parameters=parameters or None,
        task_type="CAUSAL_LM",
    )
    with warnings.catch_warnings():
        # peft asks transformers by a name that transformers has deprecated.
        warnings.simplefilter("ignore", FutureWarning)
        adapted = get_peft_model(copy.deepcopy(model), config)
    torch.manual_seed(1)
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            parameter.data.normal_(0, 0.05)
    return adapted


def _targets(model: Any, wanted: str | Sequence[str]) -> tuple[str | list[str], list[str]]:
    """PEFT's target_modules and target_parameters: it takes an MLP's names for experts, if there are any."""
    attention = ["q_proj", "k_proj", "v_proj", "o_proj"]
    if wanted == "attention":
        return attention, []
    if not any(name.endswith(".experts") for name, _ in model.named_modules()):
        return ("all-linear" if isinstance(wanted, str) else list(wanted)), []
    names = [*attention, *MLP] if isinstance(wanted, str) else list(wanted)
    experts = [name for name in names if name.startswith("experts.")]
    linear = [
        f"{name}.weight" for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and name.rpartition(".")[2] in {*MLP} & {*names}
    ]  # fmt: skip
    return [name for name in names if name in attention], linear + experts


@pytest.fixture
def examples() -> Callable[..., list[Example]]:
    def make(*lengths: int, seed: int = 0, vocab: int = 128) -> list[Example]:
        """Examples of these lengths with labels on their second half."""
        generator = torch.Generator().manual_seed(seed)
        made: list[Example] = []
        for length in lengths:
            ids = torch.randint(3, vocab, (length,), generator=generator).tolist()
            made.append(Example(ids, [-100] * (length // 2) + ids[length // 2 :]))
        return made

    return make


@pytest.fixture
def saved(tmp_path: Path) -> Callable[[Any], Path]:
    def save(model: Any) -> Path:
        folder = tmp_path / "model"
        model.save_pretrained(folder)
        return folder

    return save


def a_plan(**settings: Any) -> Plan:
    """A plan for a small model on a CPU; the settings under their flat names."""
    decided = {"engine": "packed", "device": "cpu", "recompute": "nothing", "batch_size": 8}
    decided |= {"epochs": 3.0, "learning_rate": 2e-4}
    return Plan.from_record({**decided, "micro_batch_tokens": 8192, **settings})


class Events:
    """A report that remembers, and what it saw."""

    def __init__(self) -> None:
        self.all: list[tuple[str, dict[str, Any]]] = []

    def __call__(self, event: Event) -> None:
        self.all.append((event.kind, event.model_dump(exclude={"seq", "t", "kind"}, exclude_none=True)))

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [fields for name, fields in self.all if name == kind]

    def losses(self) -> list[float]:
        return [fields["loss"] for fields in self.of("step")]


@pytest.fixture
def events() -> Events:
    return Events()
