"""Memory that runs out outside of a step: the run recovers, or names the next setting."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, GenerationMixin, PreTrainedTokenizerBase

from backpropagate import Trainer
from backpropagate.tools.status import run_status
from backpropagate.tools.train import train
from backpropagate.tools.wording import WITHIN_SETTINGS, words
from backpropagate.training.config.specs import LoraGroup
from backpropagate.training.engine.autograd.engine import AutogradStep
from backpropagate.training.engine.loop.batch import PackedBatch
from backpropagate.training.engine.loop.checkpoints import Checkpoints
from backpropagate.training.engine.loop.fit import fit
from backpropagate.training.engine.open_model import open_model
from backpropagate.training.engine.out_of_memory import out_of_memory
from backpropagate.training.engine.packed.engine import PackedStep, load_packed_step
from backpropagate.training.engine.packed.read_rows import PIECE_BYTES
from backpropagate.training.engine.plan import Data, Example, Plan
from backpropagate.training.engine.run import run_engine
from backpropagate.training.errors import GpuOutOfMemoryError
from backpropagate.training.next_step import Next, then
from backpropagate.training.runs.view import view
from backpropagate.training.service import TrainingService

from .conftest import Events, a_plan, tiny_model

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
EVALUATED = {"steps": 4, "batch_size": 2, "eval_every": 2, "learning_rate": 1e-2, "threads": 1}


def no_memory(*_: Any, **__: Any) -> Any:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3 GiB")


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    tiny_model("llama").save_pretrained(tmp_path / "model")
    lora = LoraGroup(r=4, alpha=8)
    return a_plan(model=tmp_path / "model", adapter=tmp_path / "adapter", lora=lora, **EVALUATED)


def test_a_base_in_fp8_that_does_not_fit_gives_way_to_one_in_4_bits(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "empty", no_memory)
    with pytest.raises(GpuOutOfMemoryError) as caught:
        open_model(plan.changed(base_precision="fp8"), Events())
    assert caught.value.next == then("ask_again", load_in_4bit=True, base_precision="auto")


@pytest.mark.parametrize("engine", ["packed", "autograd", "trl"])
def test_a_model_that_does_not_fit_ends_with_the_advice_to_load_it_in_4_bits(
    engine: str, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = torch.empty
    room = lambda *size, **more: no_memory() if size == (PIECE_BYTES,) else real(*size, **more)  # noqa: E731
    monkeypatch.setattr(torch, "empty", room)
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", no_memory)
    with pytest.raises(GpuOutOfMemoryError, match="ran out while loading on the cpu") as caught:
        open_model(plan.changed(engine=engine), Events())
    assert caught.value.next == then("ask_again", load_in_4bit=True)
    assert str(caught.value.untrusted).startswith("CUDA out of memory")


class SmallEvaluation(PackedStep):
    """A step with room for so many tokens at once when it evaluates."""

    room = 30

    def loss(self, batch: PackedBatch) -> torch.Tensor:
        return super().loss(batch) if batch.useful_tokens <= self.room else no_memory()


def evaluated(plan: Plan, room: int, folder: Path, data: Data, events: Events) -> None:
    step = SmallEvaluation(load_packed_step(plan).decoder, plan)
    step.room = room
    fit(step, plan, data, events, lambda: False, Checkpoints(folder))


def test_an_evaluation_that_runs_out_of_memory_is_done_again_in_smaller_parts(
    plan: Plan, tmp_path: Path, examples: Callable[..., list[Example]]
) -> None:
    data = Data(examples(17, 9, 30, 12, 21, 8), examples(20, 11, 12, seed=5))
    undisturbed, small = Events(), Events()
    evaluated(plan, 10_000, tmp_path / "c", data, undisturbed)
    evaluated(plan, 25, tmp_path / "d", data, small)
    losses = [[event["loss"] for event in events.of("eval")] for events in (undisturbed, small)]
    assert len(losses[0]) == 3 and losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert small.of("warning")[0]["message"].startswith("The evaluation after step 0 ran out of memory")


def test_an_evaluation_of_trl_that_runs_out_of_memory_goes_on_in_smaller_parts_and_says_so(
    plan: Plan,
    tiny_model: Path,
    tmp_path: Path,
    examples: Callable[..., list[Example]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = Data(examples(17, 9, 30, 12, 21, 8), examples(20, 11, 12, seed=5))
    plan, undisturbed, small = replace(plan.changed(engine="trl"), model=tiny_model), Events(), Events()
    run_engine(plan, data, undisturbed, lambda: False, Checkpoints(tmp_path / "c"))
    real = AutogradStep.label_losses
    monkeypatch.setattr(
        AutogradStep,
        "label_losses",
        lambda step, batch: real(step, batch) if batch.useful_tokens <= 25 else no_memory(),
    )
    run_engine(plan, data, small, lambda: False, Checkpoints(tmp_path / "d"))
    losses = [[event["loss"] for event in events.of("eval")] for events in (undisturbed, small)]
    assert len(losses[0]) == 3 and losses[1] == pytest.approx(losses[0], rel=1e-5)
    (told,) = small.of("warning")
    assert told["message"].startswith("Memory ran out while evaluating: held-out rows go on with at most 21")


def test_an_evaluation_that_cannot_be_smaller_names_the_next_setting(
    plan: Plan, tmp_path: Path, examples: Callable[..., list[Example]]
) -> None:
    data = Data(examples(17, 9, 30, 12, 21, 8), examples(20, 11, 12, seed=5))
    with pytest.raises(GpuOutOfMemoryError, match="An example of 20 tokens does not fit") as caught:
        evaluated(plan.changed(load_in_4bit=True), 5, tmp_path / "c", data, Events())
    assert caught.value.next == then("ask_again", max_seq_length=1024)


def a_run(model: Path, dataset: Path, **settings: Any) -> Trainer:
    return Trainer(
        str(model),
        questions=["What is zorvex?", "And why?"],
        max_new_tokens=32,
        held_out=0,
        threads=1,
        **settings,
    )


@pytest.mark.slow
def test_questions_that_do_not_fit_together_are_answered_one_by_one(
    tiny_model: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = a_run(tiny_model, dataset).train(dataset, steps=1)
    real, sizes = GenerationMixin.generate, list[int]()

    def generate(self: Any, *, input_ids: torch.Tensor, **more: Any) -> Any:
        sizes.append(len(input_ids))
        return real(self, input_ids=input_ids, **more) if len(input_ids) == 1 else no_memory()

    monkeypatch.setattr(GenerationMixin, "generate", generate)
    apart = a_run(tiny_model, dataset).train(dataset, steps=1)
    assert apart.answers == together.answers and sizes == [2, 1, 1, 2, 1, 1]


def test_answers_without_memory_cost_the_run_nothing_but_its_answers(
    tiny_model: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch, service: TrainingService
) -> None:
    monkeypatch.setattr(GenerationMixin, "generate", no_memory)
    run = a_run(tiny_model, dataset).train(dataset, steps=1)
    folder = service.store.find(run.run_id)
    seen = view(folder, folder.state())
    assert seen.status == "completed" and not run.answers and run.adapter_path.is_dir()
    (warning,) = [text for text in seen.warnings if "The adapter is saved" in text]
    assert "[RUNTIME_GPU_OOM] Memory ran out while answering" in warning and "max_new_tokens=16" in warning


def test_saving_without_memory_names_the_next_setting_as_the_next_step(
    tiny_model: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch, service: TrainingService
) -> None:
    monkeypatch.setattr(PreTrainedTokenizerBase, "save_pretrained", no_memory)
    with pytest.raises(GpuOutOfMemoryError, match="Memory ran out while saving"):
        a_run(tiny_model, dataset).train(dataset, steps=1)
    (folder,) = [run for run, _ in service.store.newest(None)]
    seen = view(folder, folder.state())
    assert seen.error is not None and seen.error.code == "RUNTIME_GPU_OOM"
    assert seen.next == then("ask_again", lora_r=8)
    assert "call train again" in run_status(seen).next


def all_advice(plan: Plan) -> list[Next]:
    found: list[Next] = []
    for doing in ("loading", "training", "evaluating", "answering", "saving"):
        for four_bits in (False, True):
            for recompute in ("nothing", "everything"):
                for engine in ("packed", "trl"):
                    chosen = plan.changed(load_in_4bit=four_bits, recompute=recompute, engine=engine)
                    error = out_of_memory(chosen, doing, "…")
                    if error.next:
                        found.append(error.next)
    return found


def test_advice_is_a_call_that_the_train_tool_takes(plan: Plan) -> None:
    advice = all_advice(plan)
    assert {name for step in advice for name in step.arguments} >= {"recompute", "load_in_4bit", "lora_r"}
    for step in advice:
        assert step.arguments.keys() <= {*train.__annotations__, *WITHIN_SETTINGS}
    assert words(then("ask_again", recompute="everything")) == (
        'call again with settings={"recompute": "everything"}.'
    )
