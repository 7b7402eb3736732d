"""A run goes on where it stopped, whatever stopped it, and ends as if nothing had."""

from __future__ import annotations

import itertools
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest
from safetensors.numpy import load_file
from small_disk import needs_small_disk, small_disk
from waiting import events_of, kill_worker, small_spec, steps_of, wait_for_step

from backpropagate import Trainer
from backpropagate.training.config.results import TrainResult
from backpropagate.training.engine.loop.checkpoints import damage as damage_of
from backpropagate.training.errors import DatasetError, InputError
from backpropagate.training.runs.folder import RunFolder, Status
from backpropagate.training.service import TrainingService

pytestmark = pytest.mark.anyio
STEPS = 40


async def end_of(service: TrainingService, run_id: str) -> Status:
    async for _ in service.watch(run_id):
        pass
    return (await service.get(run_id)).status


def losses(run: RunFolder) -> dict[int, float]:
    """Of each step; a step that was done again counts as it was done last."""
    return {
        getattr(event, "step", None): getattr(event, "loss", None)
        for event in events_of(run)
        if event.kind == "step"
    }


def weights(run: RunFolder) -> dict[str, list[float]]:
    tensors = load_file(run.adapter_path / "adapter_model.safetensors")
    return {name: tensor.ravel().tolist() for name, tensor in tensors.items()}


@pytest.mark.slow
async def test_a_run_killed_at_five_moments_equals_the_undisturbed_one_bit_for_bit(
    service: TrainingService, dataset: Path, tiny_model: Path
) -> None:
    spec = small_spec(dataset, tiny_model, steps=STEPS, checkpoint_every_steps=5, lora_dropout=0.1)
    calm = service.store.find((await service.submit(spec)).run_id)
    assert await end_of(service, calm.run_id) is Status.COMPLETED

    stormy = service.store.find((await service.submit(spec)).run_id)
    moments = sorted(random.Random(3).sample(range(2, STEPS - 5), 5))
    for moment in moments:
        wait_for_step(stormy, moment)
        kill_worker(stormy)
        assert await end_of(service, stormy.run_id) in {Status.INTERRUPTED, Status.COMPLETED}
        if stormy.state().status is Status.COMPLETED:
            break
        await service.resume(stormy.run_id)
    assert await end_of(service, stormy.run_id) is Status.COMPLETED
    assert losses(stormy) == losses(calm) and len(losses(calm)) == STEPS
    assert weights(stormy) == weights(calm)


def stop_after(steps: int) -> Callable[[], bool]:
    """A `should_stop` that says so once so many steps have been taken."""
    asked = itertools.count()
    return lambda: next(asked) > steps + 6  # it is asked some times before the first step


def a_trainer(model: Path, **settings: object) -> Trainer:
    return Trainer(str(model), lora_r=4, batch_size=2, threads=1, **settings)  # type: ignore[arg-type]


def stopped(trainer: Trainer, dataset: Path, service: TrainingService) -> RunFolder:
    """A run of 40 steps that was stopped on its way."""
    run = trainer.train(dataset, steps=40, should_stop=stop_after(15))
    assert run.status is Status.CANCELLED and 5 < run.steps < 40
    return service.store.find(run.run_id)


def test_a_cancelled_run_goes_on_as_a_new_attempt_though_the_data_has_changed_meanwhile(
    service: TrainingService, dataset: Path, tiny_model: Path
) -> None:
    trainer = a_trainer(tiny_model)
    run = stopped(trainer, dataset, service)
    dataset.write_text('{"text": "changed meanwhile"}\n')  # its tokens are still cached
    resumed = trainer.train(resume_from=run.run_id)
    assert resumed.run_id == run.run_id and resumed.status is Status.COMPLETED
    assert run.state().attempt == 2
    steps = [event.step for event in steps_of(run)]
    assert steps == list(range(1, 41)), "no step is left out, and none done twice"


def test_a_changed_dataset_is_refused_when_its_tokens_are_gone(
    service: TrainingService, dataset: Path, tiny_model: Path, home: Path
) -> None:
    trainer = a_trainer(tiny_model)
    run = stopped(trainer, dataset, service)
    shutil.rmtree(home / "cache")
    dataset.write_text('{"text": "changed meanwhile"}\n' * 30)
    with pytest.raises(DatasetError, match="has changed since this run started"):
        trainer.train(resume_from=run.run_id)
    assert run.state().status is Status.FAILED


@pytest.mark.parametrize("damage", ["truncated", pytest.param("bit-flipped", marks=pytest.mark.nightly)])
@pytest.mark.slow
async def test_a_damaged_checkpoint_is_noticed_and_the_one_before_it_used(
    damage: str, service: TrainingService, dataset: Path, tiny_model: Path
) -> None:
    trainer = a_trainer(tiny_model, checkpoint_every_steps=3)
    calm = service.store.find(trainer.train(dataset, steps=40).run_id)
    run = stopped(trainer, dataset, service)
    before, newest = sorted(run.checkpoints_path.glob("step-*"))[-2:]
    file = newest / "optimizer.safetensors"
    content = bytearray(file.read_bytes())
    if damage == "truncated":
        content = content[: len(content) // 2]
    else:
        content[-3] ^= 16
    file.write_bytes(content)
    await service.resume(run.run_id)
    assert await end_of(service, run.run_id) is Status.COMPLETED
    state = run.state()
    assert isinstance(state.result, TrainResult)
    assert state.result.resumed_from == step_of(before)
    assert any(f"step {step_of(newest)} is damaged" in warning for warning in state.warnings), state
    assert losses(run) == losses(calm) and weights(run) == weights(calm)


def step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("step-"))


@needs_small_disk
@pytest.mark.slow
async def test_a_disk_that_is_full_at_a_checkpoint_fails_the_run_which_goes_on_when_there_is_space(
    home: Path, dataset: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"lora_r": 64, "steps": 20, "checkpoint_every_steps": 5}  # a checkpoint of 0.8 MB
    trainer = Trainer(str(tiny_model), batch_size=2, threads=1, lora_r=64, checkpoint_every_steps=5)
    calm = RunFolder(trainer.train(dataset, steps=20).run_folder)
    with small_disk(tmp_path / "disk", "2200k") as resize:
        monkeypatch.setenv("BACKPROPAGATE_HOME", str(tmp_path / "disk/home"))
        service = TrainingService()
        run = service.store.find((await service.submit(small_spec(dataset, tiny_model, **settings))).run_id)
        assert await end_of(service, run.run_id) is Status.FAILED
        error = run.state().error
        assert error and error.code == "RUNTIME_DISK_FULL" and "step-000015" in error.message
        kept = list(run.checkpoints_path.iterdir())
        assert sorted(map(step_of, kept)) == [5, 10] and not any(map(damage_of, kept))
        resize("8m")
        await service.resume(run.run_id)
        assert await end_of(service, run.run_id) is Status.COMPLETED
        assert run.state().result.resumed_from == 10
        assert losses(run) == losses(calm) and weights(run) == weights(calm)


@pytest.mark.slow
async def test_many_calls_that_resume_a_run_at_once_make_one_attempt(
    service: TrainingService, dataset: Path, tiny_model: Path
) -> None:
    run = stopped(a_trainer(tiny_model), dataset, service)
    others = [TrainingService(service.settings) for _ in range(8)]
    async with anyio.create_task_group() as calls:
        for one in others:
            calls.start_soon(one.resume, run.run_id)
    assert await end_of(service, run.run_id) is Status.COMPLETED
    assert run.state().attempt == 2


@pytest.mark.slow
async def test_more_steps_than_planned_make_a_new_run_from_the_adapter(
    service: TrainingService, dataset: Path, tiny_model: Path
) -> None:
    first = a_trainer(tiny_model).train(dataset, steps=4)
    with pytest.raises(InputError, match="has completed"):
        await service.resume(first.run_id)
    longer = await service.resume_or_extend(first.run_id, steps=6)
    assert longer.run_id != first.run_id
    assert await end_of(service, longer.run_id) is Status.COMPLETED
    run = service.store.find(longer.run_id)
    spec = run.spec()
    assert spec.kind == "train" and spec.parent == first.run_id and len(losses(run)) == 2


@pytest.mark.slow
def test_the_engine_can_be_chosen_and_the_result_says_why(
    service: TrainingService, dataset: Path, tiny_model: Path
) -> None:
    for engine, name in (("auto", "packed"), ("autograd", "autograd"), ("trl", "trl")):
        run = a_trainer(tiny_model, engine=engine).train(dataset, steps=2)
        result = service.store.find(run.run_id).state().result
        assert result.engine == name and result.engine_reason and result.eval_loss > 0


def test_early_stopping_keeps_the_best_adapter_and_the_run_completes(
    service: TrainingService, dataset: Path, tiny_model: Path
) -> None:
    trainer = a_trainer(tiny_model, eval_every=2, patience=2, learning_rate=0.5, max_grad_norm=0.0)
    run = trainer.train(dataset, steps=60)
    result = service.store.find(run.run_id).state().result
    assert run.status is Status.COMPLETED and run.steps < 60
    assert result.outcome == "early_stopped" and result.best_step <= run.steps - 4
