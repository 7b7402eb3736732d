"""What the stand-in promises, of a Slurm with two nodes on this machine."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from real_slurm import missing, real_slurm
from waiting import wait_for_step, wait_until

from backpropagate.training.clusters import job_table
from backpropagate.training.clusters.slurm import cluster_name
from backpropagate.training.config.settings import load_settings
from backpropagate.training.errors import ClusterError
from backpropagate.training.runs.folder import Status
from backpropagate.training.service import TrainingService

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.slow,
    pytest.mark.skipif(missing() is not None, reason=missing() or ""),
]


@pytest.fixture(scope="module")
def configuration(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with real_slurm(tmp_path_factory.mktemp("slurm")) as configuration:
        yield configuration


@pytest.fixture
def service(configuration: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> TrainingService:
    monkeypatch.setenv("SLURM_CONF", str(configuration))
    monkeypatch.setattr(job_table, "FRESH_S", 0.5)
    cluster_name.cache_clear()
    home.mkdir(parents=True, exist_ok=True)
    text = '[lab]\ntime = "10"\n[wrong]\npartition = "nope"\n[long]\ntime = "30"\nnodelist = "n1"\n'
    text += '[both]\ntime = "10"\nnodes = 2\n'
    (home / "clusters.toml").write_text(text, encoding="utf-8")
    return TrainingService(load_settings())


async def test_a_training_completes_and_another_is_cancelled_outside_resumed_and_stopped(
    service: TrainingService, dataset: Path, tiny_model: Path
) -> None:
    first = await service.train(dataset, tiny_model, on="lab", steps=3)
    view = await service.wait(first.run_id)
    assert (view.status, view.step) == (Status.COMPLETED, 3) and view.job

    second = await service.train(dataset, tiny_model, on="lab", steps=100_000, checkpoint_every_steps=5)
    run = service.store.find(second.run_id)
    wait_for_step(run, 7)
    job_id = ((await service.get(run.run_id)).job or "").split()[-1]
    subprocess.run(["scancel", job_id], check=True)
    view = await service.wait(run.run_id)
    assert view.status is Status.INTERRUPTED and view.error and "The run's job" in view.error.message

    await service.resume(run.run_id)
    wait_for_step(run, view.step + 1)
    await service.cancel(run.run_id)
    view = await service.wait(run.run_id)
    assert (view.status, view.attempt) == (Status.CANCELLED, 2) and view.adapter_path


async def test_a_job_waits_behind_others_with_a_reason_and_a_wrong_partition_is_refused(
    service: TrainingService, dataset: Path, tiny_model: Path
) -> None:
    filling = ["sbatch", "--parsable", "--nodelist=n1", "--output=/dev/null", "--wrap=sleep 300"]
    filler = subprocess.run(filling, check=True, capture_output=True, text=True).stdout.strip()
    try:
        waiting = await service.train(dataset, tiny_model, on="long", steps=3)
        run = service.store.find(waiting.run_id)
        wait_until(lambda: (state := service.store.observe(run).cluster) and state.waits_for, "a reason")
        await service.cancel(run.run_id)
        assert (await service.wait(run.run_id)).status is Status.CANCELLED
    finally:
        subprocess.run(["scancel", filler], check=True)
    with pytest.raises(ClusterError, match="'wrong' takes no job"):
        await service.train(dataset, tiny_model, on="wrong", steps=3)
    assert service.store.ids() == [run.run_id]


async def test_two_nodes_share_a_training_with_the_losses_of_one_and_end_together(
    service: TrainingService, dataset: Path, tiny_model: Path
) -> None:
    given: dict[str, Any] = {"steps": 4, "device": "cpu", "batch_size": 4}
    shared = await service.train(dataset, tiny_model, on="both", **given)
    alone = await service.train(dataset, tiny_model, **given)
    views = [await service.wait(run.run_id) for run in (shared, alone)]
    assert [view.status for view in views] == [Status.COMPLETED, Status.COMPLETED]
    assert [getattr(view.result, "gpus", 0) for view in views] == [2, 1]
    assert views[0].losses == pytest.approx(views[1].losses, abs=1e-5)

    longer = await service.train(dataset, tiny_model, on="both", **{**given, "steps": 100_000})
    run = service.store.find(longer.run_id)
    wait_for_step(run, 2)
    (other,) = processes_of(run.run_id, "worker.rank_of_node")
    other.kill()
    view = await service.wait(run.run_id)
    assert view.status is Status.INTERRUPTED and view.error and "Process 2 of 2" in view.error.message
    wait_until(lambda: not processes_of(run.run_id, "training.worker"), "the end of all processes")


def processes_of(run_id: str, module: str) -> list[psutil.Process]:
    """Those of a run that execute such a module."""
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            line = " ".join(process.cmdline())
            if run_id in line and module in line and not line.startswith("srun"):
                found.append(process)
    return found
