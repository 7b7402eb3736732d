"""A training on several GPUs, with processes on the CPU in their place: what they learn, and how they end."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from safetensors.numpy import load_file
from waiting import kill_worker, small_spec, steps_of, wait_for_phase, wait_for_step, wait_until

from backpropagate import Trainer
from backpropagate.training.config.results import TrainResult
from backpropagate.training.config.specs import TrainSpec
from backpropagate.training.engine import loaded_model
from backpropagate.training.errors import GpuNotAvailableError, InputError
from backpropagate.training.runs.folder import RunFolder, RunState, Status
from backpropagate.training.service import TrainingService

pytestmark = pytest.mark.anyio


def trained(
    gpus: int, model: Path, dataset: Path, steps: int = 6, **settings: Any
) -> tuple[list[float], TrainResult, Path]:
    trainer = Trainer(
        str(model),
        lora_r=4,
        batch_size=6,
        threads=1,
        device="cpu",
        gpus=gpus,
        eval_every=3,
        held_out=0.1,
        **settings,
    )
    run = trainer.train(dataset, steps=steps)
    result = run.result
    assert isinstance(result, TrainResult)
    return [float(loss) for loss in run.losses], result, run.adapter_path


def test_two_processes_learn_what_one_does_and_tell_the_peak_memory_of_the_one_that_needed_more(
    home: Path, dataset: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, of_one, adapter = trained(1, tiny_model, dataset)
    monkeypatch.setattr(loaded_model, "peak_memory_mib", lambda: 1)  # of this process, which is the first
    two, of_two, shared = trained(2, tiny_model, dataset)
    assert two == pytest.approx(one, abs=1e-6) and len(one) == 6
    assert of_two.eval_loss == pytest.approx(of_one.eval_loss, abs=1e-6)
    ours, theirs = (load_file(folder / "adapter_model.safetensors") for folder in (adapter, shared))
    assert all(abs(ours[name] - theirs[name]).max() < 1e-4 for name in ours)
    assert (of_one.gpus, of_two.gpus) == (1, 2) and not of_one.peak_memory_mib_of_each
    first, second = of_two.peak_memory_mib_of_each
    assert first == 1 and 100 < second == of_two.peak_memory_mib
    assert of_two.device_name == f"2 processes on {of_one.device_name}"


@pytest.mark.nightly
@pytest.mark.slow
def test_three_processes_learn_what_one_does(home: Path, dataset: Path, tiny_model: Path) -> None:
    one, of_one, _ = trained(1, tiny_model, dataset)
    three, of_three, _ = trained(3, tiny_model, dataset)
    assert three == pytest.approx(one, abs=1e-6)
    assert of_three.eval_loss == pytest.approx(of_one.eval_loss, abs=1e-6) and of_three.gpus == 3


@pytest.mark.slow
@pytest.mark.parametrize(("gpus", "in_4bit"), [(2, True), (3, False)])
def test_processes_that_each_have_a_shard_of_the_weights_learn_and_answer_what_one_does(
    gpus: int, in_4bit: bool, home: Path, dataset: Path, tiny_model: Path
) -> None:
    settings: dict[str, Any] = {"load_in_4bit": in_4bit, "questions": ["Which?"], "max_new_tokens": 8}
    one, of_one, _ = trained(1, tiny_model, dataset, **settings)
    several, shared, adapter = trained(gpus, tiny_model, dataset, **settings, weights="sharded")
    assert several == pytest.approx(one, abs=1e-6) and len(one) == 6
    assert shared.eval_loss == pytest.approx(of_one.eval_loss, abs=1e-6)
    assert shared.answers == of_one.answers and len(shared.answers) == 1
    plan = json.loads((adapter.parent / "plan.json").read_text())
    assert plan["resident_layers"] and plan["reasons"]["weights"] == f"sharded over {gpus} processes"
    assert "weights is not used" not in (adapter.parent / "events.jsonl").read_text()


async def started(service: TrainingService, spec: TrainSpec) -> tuple[RunFolder, list[psutil.Process]]:
    """A run of three processes after a few checkpoints, and the two that are not its worker."""
    run = service.store.find((await service.submit(spec)).run_id)
    wait_for_step(run, 25)
    pid = run.state().pid
    assert pid is not None
    others = [child for child in psutil.Process(pid).children() if is_rank(child)]
    assert len(others) == 2
    return run, others


def is_rank(process: psutil.Process) -> bool:
    return any(word.endswith("worker.rank") for word in process.cmdline())


def ended(service: TrainingService, run: RunFolder) -> RunState:
    """The state of a run once a reader finds that it has ended."""
    wait_until(lambda: service.store.observe(run).status is not Status.RUNNING, "the end of the run")
    return service.store.observe(run)


def require_gone(processes: list[psutil.Process]) -> None:
    wait_until(lambda: not any(process.is_running() for process in processes), "the end of the processes")


def kill_one(run: RunFolder, others: list[psutil.Process]) -> None:
    others[1].kill()


def kill_the_worker(run: RunFolder, others: list[psutil.Process]) -> None:
    kill_worker(run)


def freeze_one(run: RunFolder, others: list[psutil.Process]) -> None:
    """Its connections stay open and nothing comes: as of a host whose network is gone."""
    others[0].suspend()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("harm", "said", "weights"),
    [
        (kill_one, "Process 3 of 3 was killed", "auto"),
        *(
            pytest.param(*rest, marks=pytest.mark.nightly)
            for rest in (
                (kill_one, "Process 3 of 3 was killed", "sharded"),
                (kill_the_worker, "worker process", "auto"),
                (freeze_one, "Process 2 of 3 does not answer any more", "auto"),
                (freeze_one, "Process 2 of 3 does not answer any more", "sharded"),
                (kill_the_worker, "worker process", "sharded"),
            )
        ),
    ],
)
async def test_a_process_that_is_gone_ends_the_run_which_goes_on_with_another_number(
    harm: Callable[[RunFolder, list[psutil.Process]], None],
    said: str,
    weights: str,
    service: TrainingService,
    dataset: Path,
    tiny_model: Path,
) -> None:
    settings = {"steps": 400, "device": "cpu", "checkpoint_every_steps": 5, "held_out": 0.0}
    settings["weights"] = weights
    run, others = await started(service, small_spec(dataset, tiny_model, gpus=3, **settings))
    harm(run, others)
    state = ended(service, run)
    assert state.status is Status.INTERRUPTED and state.error is not None
    assert state.error.code == "RUNTIME_RUN_INTERRUPTED" and said in state.error.message
    require_gone(others)
    assert (await service.resume(run.run_id, gpus=1)).settings["gpus"] == 1
    wait_for_step(run, max(step.step for step in steps_of(run)) + 20)
    await service.cancel(run.run_id)
    wait_until(lambda: service.store.observe(run).status is Status.CANCELLED, "the end of the run")
    result = run.state().result
    assert isinstance(result, TrainResult) and result.gpus == 1 and (result.resumed_from or 0) >= 20
    not_used = "weights=sharded is not used: the run has one GPU of this host."
    assert (not_used in run.state().warnings) == (weights == "sharded")


@pytest.mark.slow
@pytest.mark.nightly
async def test_a_process_with_a_shard_that_is_killed_while_questions_are_asked_ends_the_run(
    service: TrainingService, dataset: Path, tiny_model: Path
) -> None:
    """The adapter is there; a resumed run goes on after its last step."""
    spec = small_spec(
        dataset, tiny_model, gpus=3, weights="sharded", steps=30, device="cpu", held_out=0.0,
        questions=[f"Question {number}?" for number in range(40)], max_new_tokens=64,
    )  # fmt: skip
    run, others = await started(service, spec)
    wait_for_phase(run, "answering")
    others[0].kill()
    state = ended(service, run)
    assert state.status is Status.INTERRUPTED and state.error is not None
    assert "Process 2 of 3 was killed" in state.error.message
    require_gone(others)
    await service.resume(run.run_id, gpus=2)
    wait_until(lambda: service.store.observe(run).status is Status.COMPLETED, "the end of the run")
    result = run.state().result
    assert isinstance(result, TrainResult) and result.resumed_from == 30 and len(result.answers) == 40


FAILING = """
import os
if os.environ.get("RANK") == "1":
    import backpropagate.training.data.prepare as module
    module.prepared_before = lambda cache, key: None
"""


@pytest.mark.nightly
@pytest.mark.slow
async def test_a_process_that_fails_ends_the_run_with_its_error(
    service: TrainingService,
    dataset: Path,
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(FAILING)
    paths = [str(tmp_path / "site"), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    spec = small_spec(dataset, tiny_model, gpus=2, steps=5, device="cpu")
    run = service.store.find((await service.submit(spec)).run_id)
    wait_until(lambda: service.store.observe(run).status is Status.FAILED, "the end of the run")
    error = run.state().error
    assert error is not None and error.code == "RUNTIME_ERROR" and "cache" in error.message


@pytest.mark.slow
async def test_a_cancel_stops_all_of_them(service: TrainingService, dataset: Path, tiny_model: Path) -> None:
    spec = small_spec(dataset, tiny_model, gpus=3, steps=100_000, device="cpu")
    run, others = await started(service, spec)
    await service.cancel(run.run_id)
    wait_until(lambda: service.store.observe(run).status is Status.CANCELLED, "the end of the run")
    require_gone(others)
    result = run.state().result
    assert isinstance(result, TrainResult) and result.steps >= 25


def test_more_gpus_than_there_are_are_refused_with_their_number(
    home: Path, dataset: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(GpuNotAvailableError, match="gpus is 2, but no NVIDIA GPU can be used here"):
        Trainer(str(tiny_model), gpus=2).train(dataset, steps=1)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr(
        "backpropagate.training.hardware.devices._gpu_uuids", lambda: ["GPU-a", "GPU-b", "GPU-c"]
    )
    with pytest.raises(GpuNotAvailableError, match="gpus is 4, but only 3 GPUs can be used") as caught:
        Trainer(str(tiny_model), gpus=4).train(dataset, steps=1)
    assert 'gpus="all"' in (caught.value.hint or "")


def test_weights_sharded_over_one_gpu_are_refused(home: Path, dataset: Path, tiny_model: Path) -> None:
    with pytest.raises(InputError, match="weights: sharded is for several GPUs, and gpus is 1"):
        Trainer(str(tiny_model), device="cpu", weights="sharded").train(dataset)


@pytest.mark.slow
def test_each_gpu_that_a_run_is_given_gets_a_process(
    home: Path, dataset: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr("backpropagate.training.hardware.devices._gpu_uuids", lambda: ["GPU-a", "GPU-b"])
    result = Trainer(str(tiny_model), gpus="all").train(dataset, steps=1).result
    assert result.gpus == 2  # torch sees neither, and computes on the CPU


def test_what_uses_one_gpu_only_is_refused_by_name(home: Path, dataset: Path, tiny_model: Path) -> None:
    with pytest.raises(InputError, match="gpus: the engine trl uses one GPU, not 2"):
        Trainer(str(tiny_model), gpus=2, device="cpu", engine="trl").train(dataset)
    with pytest.raises(InputError, match="gpus: the trainings of a multi-run use one GPU, not all"):
        Trainer(str(tiny_model), gpus="all").multi_run(dataset, num_runs=2)
