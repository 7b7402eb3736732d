"""Memory that runs out although the parts are small: the training goes on in a way that takes less."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rarer import rarer

from backpropagate import Trainer, TrainingRun
from backpropagate.training.config.results import TrainResult
from backpropagate.training.data.tokens.example import Example
from backpropagate.training.engine.autograd.engine import AutogradStep
from backpropagate.training.engine.lighter_plan import lighter_plan
from backpropagate.training.engine.loop.batch import PackedBatch
from backpropagate.training.engine.open_model import open_model
from backpropagate.training.engine.packed.engine import PackedStep
from backpropagate.training.errors import GpuOutOfMemoryError
from backpropagate.training.events import no_report
from backpropagate.training.next_step import then
from backpropagate.training.service import TrainingService

from .conftest import a_plan

SETTINGS: dict[str, Any] = {"batch_size": 1, "threads": 1, "held_out": 0.03, "eval_every": 3, "patience": 9}


def no_memory() -> Any:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3 GiB")


def result_of(run: TrainingRun, service: TrainingService) -> TrainResult:
    result = service.store.find(run.run_id).state().result
    assert isinstance(result, TrainResult)
    return result


class Room:
    """Memory that is there for some steps; then only for those that compute everything again."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, kind: Any, steps: int) -> None:
        self.left = steps
        real: Callable[..., torch.Tensor] = kind.forward_backward

        def forward_backward(step: Any, batch: PackedBatch, weight: torch.Tensor, *, seed: int) -> Any:
            if not self._recomputes(step):
                self.left -= 1
                if self.left < 0:
                    no_memory()
            return real(step, batch, weight, seed=seed)

        monkeypatch.setattr(kind, "forward_backward", forward_backward)

    @staticmethod
    def _recomputes(step: Any) -> bool:
        if isinstance(step, PackedStep):
            return step.recompute == "everything"
        return step.model.get_base_model().is_gradient_checkpointing


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
@pytest.mark.parametrize(
    ("engine", "kind"),
    [("packed", PackedStep), rarer("autograd", AutogradStep)],
)
def test_a_training_goes_on_with_more_recomputation_and_the_same_result(
    engine: Any,
    kind: type,
    tiny_model: Path,
    dataset: Path,
    monkeypatch: pytest.MonkeyPatch,
    service: TrainingService,
) -> None:
    def a_run() -> Any:
        return Trainer(str(tiny_model), engine=engine, **SETTINGS).train(dataset, steps=8)

    undisturbed = a_run()
    Room(monkeypatch, kind, steps=5)
    recovered = a_run()
    assert recovered.losses == pytest.approx(undisturbed.losses[-len(recovered.losses) :], rel=1e-5)
    state = service.store.find(recovered.run_id).state()
    (warning,) = [text for text in state.warnings if "memory" in text]
    assert "An example of" in warning and "slower, with the same result" in warning
    assert "recompute=everything" in warning
    adapters = [run.adapter_path / "adapter_model.safetensors" for run in (undisturbed, recovered)]
    if engine == "packed":  # it computes the same again, bit for bit
        assert adapters[0].read_bytes() == adapters[1].read_bytes()


def test_a_run_that_finds_no_memory_at_all_keeps_its_steps_for_a_resume(
    tiny_model: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch, service: TrainingService
) -> None:
    trainer = Trainer(str(tiny_model), recompute="everything", **SETTINGS)
    undisturbed = trainer.train(dataset, steps=8)
    steps, real = 0, PackedStep.forward_backward

    def forward_backward(*given: Any, **named: Any) -> torch.Tensor:
        nonlocal steps
        steps += 1
        return real(*given, **named) if steps <= 5 else no_memory()

    monkeypatch.setattr(PackedStep, "forward_backward", forward_backward)
    with pytest.raises(GpuOutOfMemoryError, match="does not fit") as caught:
        trainer.train(dataset, steps=8)
    assert caught.value.next == then("ask_again", load_in_4bit=True)
    monkeypatch.setattr(PackedStep, "forward_backward", real)
    (failed,) = [run for run, _ in service.store.newest(None) if run.state().status == "failed"]
    resumed = trainer.train(resume_from=failed.run_id)
    assert result_of(resumed, service).resumed_from == 5
    adapters = [run.adapter_path / "adapter_model.safetensors" for run in (undisturbed, resumed)]
    assert adapters[0].read_bytes() == adapters[1].read_bytes()


def test_a_measurement_that_does_not_fit_is_made_in_smaller_parts(
    tiny_model: Path, tmp_path: Path, examples: Callable[..., list[Example]], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = open_model(a_plan(model=tiny_model, adapter=tmp_path / "adapter", threads=1), no_report)
    measured = examples(9, 30, 12, 21, 8, 17)
    together, real, sizes = model.losses(measured), PackedStep.label_losses, list[int]()

    def label_losses(step: PackedStep, batch: PackedBatch) -> torch.Tensor:
        sizes.append(batch.examples)
        return real(step, batch) if batch.examples == 1 else no_memory()

    monkeypatch.setattr(PackedStep, "label_losses", label_losses)
    for _ in range(2):  # the second time nothing is tried that did not fit
        apart = model.losses(measured)
        assert [loss.total for loss in apart] == pytest.approx([loss.total for loss in together], rel=1e-5)
        assert [loss.label_tokens for loss in apart] == [loss.label_tokens for loss in together]
    assert max(sizes) == 6 and sum(sizes) < 2 * 6 * 3


def test_on_a_gpu_streaming_is_the_last_resort_unless_the_user_wants_the_weights_there(
    tmp_path: Path,
) -> None:
    plan = a_plan(model=tmp_path, adapter=tmp_path, device="cuda")
    recomputing = lighter_plan(plan, "training")
    assert recomputing is not None
    assert (recomputing.training.recompute, recomputing.resident_layers) == ("everything", None)
    streaming = lighter_plan(recomputing, "training")
    assert streaming is not None and streaming.resident_layers == 0
    assert lighter_plan(streaming, "training") is None
    for doing in ("loading", "evaluating", "answering"):
        found = lighter_plan(plan, doing)
        assert found is not None and found.resident_layers == 0 and found.training.recompute == "nothing"
    for stays in ({"weights": "gpu"}, {"base_precision": "fp8"}):
        assert lighter_plan(plan.changed(**stays), "loading") is None
    assert lighter_plan(plan.changed(engine="trl"), "training") is None


@pytest.mark.parametrize("recovery", [rarer(True), False])
def test_a_user_can_have_the_error_instead(
    recovery: bool,
    tiny_model: Path,
    dataset: Path,
    monkeypatch: pytest.MonkeyPatch,
    service: TrainingService,
) -> None:
    Room(monkeypatch, PackedStep, steps=2)
    trainer = Trainer(str(tiny_model), oom_recovery=recovery, lora_r=4, held_out=0, batch_size=4, threads=1)
    if recovery:
        assert trainer.train(dataset, steps=4).steps == 4
        return
    with pytest.raises(GpuOutOfMemoryError, match="oom_recovery is off"):
        trainer.train(dataset, steps=4)
