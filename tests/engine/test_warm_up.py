"""What is compiled while weights are read is what the first step and the first evaluation need."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from rarer import rarer

from backpropagate.training.config.specs import LoraGroup
from backpropagate.training.engine.loop.batch import packed_batch
from backpropagate.training.engine.packed import fused_ops
from backpropagate.training.engine.packed.decoder import PackedDecoder
from backpropagate.training.engine.packed.load_weights import destinations
from backpropagate.training.engine.packed.open_decoder import load_decoder
from backpropagate.training.engine.packed.warm_up import one_of_each_form, warm_up
from backpropagate.training.engine.plan import Example

from .conftest import tiny_model
from .test_packed_step_equals_peft import EXPERTS, GEMMA, GPT_OSS

LORA = LoraGroup(r=4, alpha=8)
SIX_LAYERS = {"num_hidden_layers": 6}
BY_TURNS = {"layer_types": ["sliding_attention", "full_attention"] * 3}


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], int]]:
    """How many graphs Dynamo has made of what a GPU would compute with."""
    from torch._dynamo.utils import counters

    monkeypatch.setattr(fused_ops, "is_fused", lambda tensor: True)
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    torch._dynamo.reset()
    counters.clear()
    yield lambda: counters["stats"]["unique_graphs"]
    torch._dynamo.reset()


@pytest.mark.parametrize(
    ("family", "sizes", "in_4bit"),
    [
        ("cohere2", {"sliding_window": 6, **BY_TURNS}, True),
        rarer("cohere2", {"hidden_size": 512, "sliding_window": 6}, False),
        rarer("qwen3_moe", {**EXPERTS, "head_dim": 16, "mlp_only_layers": [1]}, False),
        rarer("gpt_oss", {**GPT_OSS, **BY_TURNS}, True),
    ],
)
def test_a_step_after_the_warm_up_compiles_nothing_more(
    family: str,
    sizes: dict[str, Any],
    in_4bit: bool,
    graphs: Callable[[], int],
    examples: Callable[..., list[Example]],
    saved: Callable[[Any], Path],
) -> None:
    folder = saved(tiny_model(family, **SIX_LAYERS, **sizes))
    decoder = load_decoder(folder, LORA, "bfloat16", "cpu", in_4bit=in_4bit)
    warming = threading.Thread(target=warm_up, args=(decoder, 512, "gate_up"))
    warming.start()
    warming.join()
    compiled = graphs()
    assert compiled > 1
    decoder.refresh()
    for lengths in ([17, 9], [30, 2, 5], [64] * 6):
        batch = packed_batch(examples(*lengths), multiple=64)
        decoder.label_losses(batch)
        decoder.forward_backward(batch, torch.ones(()), seed=0, recompute="gate_up")
    assert graphs() == compiled


@pytest.mark.parametrize(
    ("family", "sizes"), [("qwen2", {}), ("qwen3", {"head_dim": 16}), ("gemma2", {**GEMMA, **BY_TURNS})]
)
def test_the_usual_families_do_without_the_compiler(
    family: str,
    sizes: dict[str, Any],
    graphs: Callable[[], int],
    saved: Callable[[Any], Path],
) -> None:
    folder = saved(tiny_model(family, **SIX_LAYERS, **sizes))
    decoder = load_decoder(folder, LORA, "bfloat16", "cpu", in_4bit=False)
    warm_up(decoder, 512, "gate_up")
    assert graphs() == 1  # the MLP's backward, which FusedMlp replaces on a GPU


def test_a_warm_up_leaves_nothing_behind(
    examples: Callable[..., list[Example]], saved: Callable[[Any], Path]
) -> None:
    folder = saved(tiny_model("qwen2"))
    batch = packed_batch(examples(17, 9, 30))

    def gradients(decoder: PackedDecoder) -> torch.Tensor:
        decoder.lora.initialise(7)
        decoder.refresh()
        decoder.forward_backward(batch, torch.ones(()), seed=0, recompute="nothing")
        return decoder.lora.gradients

    class BeforeItsWeights:
        def __init__(self, decoder: PackedDecoder) -> None:
            for weight in destinations(decoder).values():
                weight.fill_(torch.nan)
            warm_up(decoder, 256, "nothing")

        def __enter__(self) -> None: ...

        def __exit__(self, *error: object) -> None: ...

    for in_4bit in (False, True):
        cold = load_decoder(folder, LORA, "float32", "cpu", in_4bit=in_4bit)
        warm = load_decoder(folder, LORA, "float32", "cpu", in_4bit=in_4bit, while_reading=BeforeItsWeights)
        assert torch.equal(gradients(cold), gradients(warm))


def test_the_warm_up_takes_one_layer_of_each_form(saved: Callable[[Any], Path]) -> None:
    equal = load_decoder(saved(tiny_model("llama", **SIX_LAYERS)), LORA, "float32", "cpu", in_4bit=False)
    assert one_of_each_form(equal.layers) == equal.layers[:2]
    windows = tiny_model("gemma2", **SIX_LAYERS, **GEMMA, **BY_TURNS)
    by_turns = load_decoder(saved(windows), LORA, "float32", "cpu", in_4bit=False)
    assert one_of_each_form(by_turns.layers) == by_turns.layers[:3]
