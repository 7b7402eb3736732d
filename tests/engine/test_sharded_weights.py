"""Weights of which each rank keeps a shard: the same numbers as with whole ones. Ranks are threads here."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from rank_threads import OnThreads
from rarer import rarer

from backpropagate.training.config.specs import LoraGroup
from backpropagate.training.engine.loop.batch import PackedBatch
from backpropagate.training.engine.loop.checkpoints import Checkpoints
from backpropagate.training.engine.packed.decoder_layer import LayerPass
from backpropagate.training.engine.packed.engine import PackedStep, load_packed_step
from backpropagate.training.engine.parallel.orders import Order
from backpropagate.training.engine.parallel.ranks import Ranks
from backpropagate.training.engine.plan import Data, Example, Plan
from backpropagate.training.events import never_stop

from .conftest import Events, a_plan, tiny_model

LAYERS = 6


@pytest.fixture
def data(examples: Callable[..., list[Example]]) -> Data:
    lengths = [6 + 7 * i % 25 for i in range(13)]  # the fourth step has one example
    return Data(examples(*lengths, vocab=12), examples(20, 9, 14, seed=9, vocab=12))


def plan_for(model: Path, scratch: Path, **settings: object) -> Plan:
    chosen = {"steps": 5, "batch_size": 4, "learning_rate": 5e-3, "eval_every": 2, "threads": 1, **settings}
    lora = LoraGroup(r=4, alpha=8)
    return a_plan(model=model, adapter=scratch / "adapter", lora=lora, micro_batch_tokens=40, **chosen)


def trained(
    ranks: int, plan: Plan, data: Data, checkpoints: Path, load: Callable[..., PackedStep] = load_packed_step
) -> tuple[list[float], OnThreads]:
    """Losses of the steps and the evaluations; and the ranks, of which the others still follow."""
    events = Events()
    together = OnThreads(ranks, plan, data, load, events)
    together.model.train(data, events, never_stop, Checkpoints(checkpoints))
    return [*events.losses(), *(event["loss"] for event in events.of("eval"))], together


@pytest.mark.parametrize(
    ("family", "ranks", "resident", "in_4bit"),
    [
        ("llama", 3, LAYERS, True),
        *(
            rarer(*slow)
            for slow in (
                ("llama", 2, 0, False), ("llama", 3, 2, False), ("llama", 2, LAYERS, False),
                ("llama", 5, 3, True), ("gemma2", 2, 1, False), ("qwen3_moe", 2, LAYERS, False),
                ("qwen3_moe", 3, 2, True),
            )
        ),
    ],
)  # fmt: skip
def test_losses_evaluations_and_answers_are_those_of_whole_weights(
    family: str,
    ranks: int,
    resident: int,
    in_4bit: bool,
    tiny_model_of: Callable[[str], Path],
    data: Data,
    tmp_path: Path,
) -> None:
    """Shares of a step differ in their micro-batches, the fourth step's one example leaves ranks without."""
    plan = plan_for(tiny_model_of(family), tmp_path, load_in_4bit=in_4bit)
    whole, one = trained(1, plan, data, tmp_path / "one")
    plan = plan.changed(resident_layers=resident)
    sharded, several = trained(ranks, plan, data, tmp_path / "several")
    assert sharded == pytest.approx(whole, abs=1e-6) and len(whole) == 9
    losses = [[loss.total for loss in of.model.losses(data.held_out)] for of in (one, several)]
    assert losses[1] == pytest.approx(losses[0], abs=1e-4)
    asked = [of.model.generate(["What is it?", "one two"], max_new_tokens=5) for of in (one, several)]
    assert asked[0] == asked[1] and all(asked[0])
    several.joined()
    assert all(other.heard.count(Order.PASS) >= 1 + 5 for other in several.others)


@pytest.fixture
def tiny_model_of(tiny_model: Path, tmp_path: Path) -> Callable[[str], Path]:
    """A model of a family and six layers, with a tokenizer."""

    def made(family: str) -> Path:
        folder = shutil.copytree(tiny_model, tmp_path / "base")
        made_model(family).save_pretrained(folder)
        return folder

    return made


def made_model(family: str) -> torch.nn.Module:
    experts = {"moe_intermediate_size": 16, "num_experts": 4, "num_experts_per_tok": 2}
    more = experts if family == "qwen3_moe" else {}
    return tiny_model(family, num_hidden_layers=LAYERS, head_dim=12, vocab_size=300, **more)


class RunsOut(PackedStep):
    """Memory runs out in the middle of the backward of a rank, as long as a part has more than 30 tokens."""

    def forward_backward(self, batch: PackedBatch, weight: torch.Tensor, *, seed: int) -> torch.Tensor:
        layer_pass = self.decoder.layer_pass
        self.decoder.layer_pass = RunsOutBelow(layer_pass) if batch.useful_tokens > 30 else layer_pass
        try:
            return super().forward_backward(batch, weight, seed=seed)
        finally:
            self.decoder.layer_pass = layer_pass


class RunsOutBelow(LayerPass):
    def __init__(self, real: LayerPass) -> None:
        self.__dict__ = dict(real.__dict__)
        self.calls = 0

    def backward(self, *args: object, **settings: object) -> torch.Tensor:
        self.calls += 1
        if self.calls == 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3 GiB")
        return super().backward(*args, **settings)  # pyright: ignore


def test_memory_that_runs_out_on_one_rank_leaves_no_other_waiting(
    tiny_model_of: Callable[[str], Path], data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_for(tiny_model_of("llama"), tmp_path)
    whole, _ = trained(1, plan, data, tmp_path / "one")

    def small(plan: Plan, ranks: Ranks) -> PackedStep:
        return RunsOut(load_packed_step(plan, ranks).decoder, plan)

    monkeypatch.setattr("backpropagate.training.engine.packed.engine.load_packed_step", small)
    sharded, several = trained(2, plan.changed(resident_layers=1), data, tmp_path / "several")
    several.joined()
    assert several.model.plan.resident_layers == 1 and several.others[0].heard.count(Order.TRAIN) > 5
    assert sharded == pytest.approx(whole, abs=1e-6)


def test_each_rank_has_an_equal_part_of_each_layer(
    tiny_model_of: Callable[[str], Path], tmp_path: Path
) -> None:
    plan = plan_for(tiny_model_of("llama"), tmp_path, resident_layers=LAYERS)
    _, several = trained(4, plan, Data([Example([3, 4, 5], [-100, 4, 5])]), tmp_path / "c")
    several.joined()
    attention, mlp = 2 * 48 * 48 + 2 * 24 * 48, 3 * 48 * 80
    quarter = (attention + mlp) * 4 // 4
    for other in several.others:
        assert {size // 256 for size in other.gathered} == {-(-quarter // 256)}
