"""Weights that stream from host memory: the same numbers as with all weights on the device."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rarer import rarer, with_rarer

from backpropagate.training.config.specs import LoraGroup
from backpropagate.training.engine.loaded_model import StepModel
from backpropagate.training.engine.loop.batch import packed_batch
from backpropagate.training.engine.loop.checkpoints import Checkpoints
from backpropagate.training.engine.open_model import open_model
from backpropagate.training.engine.packed.layer_store import streamed_layers
from backpropagate.training.engine.packed.open_decoder import load_decoder
from backpropagate.training.engine.plan import Data, Example
from backpropagate.training.events import never_stop, no_report

from .conftest import Events, a_plan, tiny_model

LORA = LoraGroup(r=4, alpha=8)
LAYERS = 6
FURTHER: dict[str, dict[str, Any]] = {
    "gemma4_text": dict(
        global_head_dim=24, hidden_size_per_layer_input=8, vocab_size_per_layer_input=128,
        num_kv_shared_layers=3, use_double_wide_mlp=True,
        layer_types=["sliding_attention", "sliding_attention", "full_attention"] * 2,
    ),
}  # fmt: skip


@pytest.mark.parametrize("in_4bit", [False, True])
@pytest.mark.parametrize(
    ("family", "resident"),
    [
        *(("qwen2", resident) for resident in (0, 3, 6)),
        *(rarer("qwen2", resident) for resident in (1, 4, 5)),
        ("gemma4_text", 1),
        *(rarer(family, 1) for family in ("gemma2", "phi3", "cohere2")),
    ],
)
def test_streaming_gives_the_same_gradients_to_the_last_bit(
    family: str,
    resident: int,
    in_4bit: bool,
    examples: Callable[..., list[Example]],
    saved: Callable[[Any], Path],
) -> None:
    folder = saved(tiny_model(family, num_hidden_layers=LAYERS, head_dim=12, **FURTHER.get(family, {})))
    batches = [packed_batch(examples(*lengths, seed=len(lengths))) for lengths in ([17, 9], [30, 2, 5])]
    found: list[list[torch.Tensor]] = []
    for layers in (LAYERS, resident):
        decoder = load_decoder(folder, LORA, "float32", "cpu", in_4bit=in_4bit, resident_layers=layers)
        decoder.lora.values.copy_(
            torch.randn(len(decoder.lora.values), generator=torch.manual_seed(1)) * 0.05
        )
        decoder.refresh()
        seen: list[torch.Tensor] = []
        for recompute in ("nothing", "everything", "gate_up"):  # passes of training and evaluation by turns
            for batch in batches:
                weight = torch.tensor(1 / batch.label_tokens)
                seen.append(decoder.label_losses(batch))
                seen.append(decoder.forward_backward(batch, weight, seed=0, recompute=recompute))
                seen.append(decoder.lora.gradients.clone())
        found.append(seen)
        assert decoder.streams == (layers < LAYERS)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(*found, strict=True))


def test_layers_that_stream_are_spread_evenly() -> None:
    assert streamed_layers(6, None) == streamed_layers(6, 6) == []
    assert streamed_layers(6, 0) == [0, 1, 2, 3, 4, 5]
    assert streamed_layers(28, 24) == [3, 10, 17, 24]
    for resident in range(29):
        assert len(set(streamed_layers(28, resident))) == 28 - resident


@pytest.mark.parametrize("in_4bit", with_rarer([True], [False]))
def test_a_run_that_streams_is_the_run_that_does_not(
    in_4bit: bool, tiny_model: Path, examples: Callable[..., list[Example]], tmp_path: Path
) -> None:
    base = shutil.copytree(tiny_model, tmp_path / "base")
    lengths = [6 + 7 * i % 25 for i in range(16)]
    data = Data(examples(*lengths, vocab=20), examples(20, 9, seed=9, vocab=20))
    curves: list[list[float]] = []
    answers: list[list[str]] = []
    for resident in (99, 0):
        plan = a_plan(
            model=base, adapter=tmp_path / "adapter", lora=LORA, steps=8, batch_size=4, learning_rate=5e-2,
            eval_every=3, load_in_4bit=in_4bit, resident_layers=resident,
        )  # fmt: skip
        events = Events()
        model = open_model(plan, no_report)
        assert isinstance(model, StepModel)
        model.train(data, events, never_stop, Checkpoints(tmp_path / f"c{resident}"))
        curves.append([*events.losses(), *(loss["loss"] for loss in events.of("eval"))])
        answers.append(model.generate(["What is it?", "one two"], max_new_tokens=8))
    assert curves[0] == curves[1]
    assert answers[0] == answers[1]
