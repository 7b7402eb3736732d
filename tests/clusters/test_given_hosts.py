"""A training on given hosts: carried out by the first, shared with the others, and ended with any of them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from fake_ssh import FakeHosts
from waiting import busy_device, steps_of, wait_for_step, wait_until

from backpropagate import Trainer
from backpropagate.cli.doctor.clusters import cluster_findings
from backpropagate.training.config.settings import load_settings
from backpropagate.training.errors import ClusterError
from backpropagate.training.runs.folder import RunFolder, RunState, Status
from backpropagate.training.runs.view import view
from backpropagate.training.service import TrainingService
from backpropagate.training.worker.with_parent import WITH_PARENT

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform == "win32", reason="hosts of Windows are not reached"),
]
GIVEN: dict[str, Any] = {"device": "cpu", "batch_size": 4, "lora_r": 4, "threads": 1}


@pytest.fixture
def hosts(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHosts]:
    """A list `pair` of two hosts, neither of which is this machine."""
    home.mkdir(parents=True)
    (home / "clusters.toml").write_text('[pair]\nhosts = ["n1.test", "n2.test"]\n', encoding="utf-8")
    fake = FakeHosts(tmp_path / "hosts")
    monkeypatch.setenv("PATH", f"{fake.bin}{os.pathsep}{os.environ['PATH']}")
    yield fake
    for process in processes_of(home):  # of a test that has failed
        with suppress(psutil.NoSuchProcess):
            process.kill()


@pytest.fixture
def service(hosts: FakeHosts) -> TrainingService:
    return TrainingService(load_settings())


def processes_of(folder: Path, module: str = "") -> list[psutil.Process]:
    """Those that execute this module for a run in this folder; all without a module."""
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            line = process.cmdline()
            if str(folder) in " ".join(line) and any(word.endswith(module) for word in line):
                found.append(process)
    return found


def ended(service: TrainingService, run: RunFolder) -> RunState:
    wait_until(lambda: service.store.observe(run).ended_at, "the end of the run")
    return service.store.observe(run)


@pytest.mark.slow
async def test_two_hosts_learn_what_one_machine_does(
    service: TrainingService, dataset: Path, tiny_model: Path
) -> None:
    shared = await service.train(dataset, tiny_model, on="pair", steps=4, **GIVEN)
    alone = await service.train(dataset, tiny_model, steps=4, **GIVEN)
    views = [await service.wait(run.run_id) for run in (shared, alone)]
    assert [view.status for view in views] == [Status.COMPLETED, Status.COMPLETED]
    assert views[0].losses == pytest.approx(views[1].losses, abs=1e-6)
    assert [getattr(view.result, "gpus", 0) for view in views] == [2, 1]
    assert (views[0].job, views[1].job) == ("'pair'", None)


async def started(service: TrainingService, dataset: Path, model: Path, step: int = 7) -> RunFolder:
    """A long run after its first checkpoint."""
    given = GIVEN | {"steps": 100_000, "checkpoint_every_steps": 5}
    submission = await service.train(dataset, model, on="pair", **given)
    run = service.store.find(submission.run_id)
    wait_for_step(run, step)
    return run


def kill_a_rank(hosts: FakeHosts, run: RunFolder) -> None:
    (rank,) = processes_of(run.path, "training.worker.rank")
    rank.kill()


def kill_the_worker(hosts: FakeHosts, run: RunFolder) -> None:
    workers = processes_of(run.path, "training.worker.main")
    (worker,) = (process for process in workers if process.cmdline()[-1] == WITH_PARENT)
    worker.kill()


def kill_the_attendant(hosts: FakeHosts, run: RunFolder) -> None:
    psutil.Process(run.state().pid).kill()


def cut_the_second(hosts: FakeHosts, run: RunFolder) -> None:
    hosts.cut("n2.test")


def cut_the_first(hosts: FakeHosts, run: RunFolder) -> None:
    hosts.cut("n1.test")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (kill_a_rank, "Host 'n2.test' was left: its process was killed (signal 9)"),
        *(
            pytest.param(*rest, marks=pytest.mark.nightly)
            for rest in (
                (kill_the_worker, "Host 'n1.test' was left: its process was killed (signal 9)"),
                (kill_the_attendant, "worker process"),
                (cut_the_second, "Host 'n2.test' cannot be reached"),
                (cut_the_first, "Host 'n1.test' cannot be reached"),
            )
        ),
    ],
)
async def test_what_is_gone_ends_the_run_everywhere_and_it_goes_on_from_its_checkpoint(
    harm: Callable[[FakeHosts, RunFolder], None],
    said: str,
    service: TrainingService,
    hosts: FakeHosts,
    dataset: Path,
    tiny_model: Path,
) -> None:
    run = await started(service, dataset, tiny_model)
    harm(hosts, run)
    state = ended(service, run)
    assert state.status is Status.INTERRUPTED and state.error is not None
    assert state.error.code == "RUNTIME_RUN_INTERRUPTED" and said in state.error.message
    wait_until(lambda: not processes_of(run.path), "the end of all processes")
    for host in ("n1.test", "n2.test"):
        with suppress(FileNotFoundError):
            hosts.mend(host)
    before = max(step.step for step in steps_of(run))
    await service.resume(run.run_id)
    wait_for_step(run, before + 3)
    await service.cancel(run.run_id)
    state = ended(service, run)
    assert state.status is Status.CANCELLED and state.result is not None
    assert getattr(state.result, "resumed_from", 0) >= 5 and getattr(state.result, "gpus", 0) == 2
    wait_until(lambda: not processes_of(run.path), "the end of all processes")


async def test_a_host_that_cannot_be_reached_is_told_before_there_is_a_run(
    service: TrainingService, hosts: FakeHosts, dataset: Path, tiny_model: Path
) -> None:
    for host in ("n2.test", "n1.test"):
        hosts.down(host)
        with pytest.raises(ClusterError, match=f"'{host}' cannot be reached by ssh: Connection refused") as e:
            await service.train(dataset, tiny_model, on="pair", **GIVEN)
        assert e.value.hint and "sshd" in e.value.hint
    assert service.store.ids() == []


@pytest.mark.nightly
@pytest.mark.slow
async def test_a_run_waits_for_the_devices_of_each_host_and_is_cancelled_while_it_waits(
    service: TrainingService, hosts: FakeHosts, dataset: Path, tiny_model: Path
) -> None:
    busy = busy_device(hosts.runtime("n2.test"))
    submission = await service.train(dataset, tiny_model, on="pair", steps=3, **GIVEN)
    run = service.store.find(submission.run_id)
    wait_until(lambda: phase_of(service, run) == "waiting for 'n2.test'", "the wait for the second host")
    assert service.store.observe(run).status is Status.QUEUED
    second = await service.train(dataset, tiny_model, on="pair", steps=4, **GIVEN)
    other = service.store.find(second.run_id)
    ahead = "waiting for the device: first in the queue"  # its first host is taken
    wait_until(lambda: phase_of(service, other) == ahead, "the wait for the first host")
    await service.cancel(other.run_id)
    assert ended(service, other).status is Status.CANCELLED
    busy.release()
    assert ended(service, run).status is Status.COMPLETED
    wait_until(lambda: not processes_of(other.path) + processes_of(run.path), "the end of all processes")


def phase_of(service: TrainingService, run: RunFolder) -> str | None:
    return view(run, service.store.observe(run)).phase


async def test_no_value_is_on_a_command_line_and_ssh_stays_as_careful_as_it_is(
    service: TrainingService,
    hosts: FakeHosts,
    dataset: Path,
    tiny_model: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hosts.down("n2.test")
    with pytest.raises(ClusterError):
        await service.train(dataset, tiny_model, on="pair", **GIVEN)
    for call in hosts.calls():
        assert "BatchMode=yes" in call["options"] and "StrictHostKeyChecking" not in call["options"]
        assert "hf_secret" not in call["command"]


def test_the_doctor_tries_each_host(hosts: FakeHosts, home: Path) -> None:
    found = list(cluster_findings())
    assert [finding.level for finding in found] == ["note", "note"]  # without a GPU
    assert "'n1.test' answers, with 0 GPUs" in found[0].message
    hosts.down("n2.test")
    assert [finding.level for finding in cluster_findings()] == ["note", "problem"]
    hosts.down("n1.test")
    (finding,) = cluster_findings()
    assert finding.level == "problem" and "Connection refused" in finding.message and finding.repair


@pytest.mark.slow
def test_a_program_trains_on_hosts_of_which_its_machine_is_the_first(
    hosts: FakeHosts, home: Path, dataset: Path, tiny_model: Path
) -> None:
    (home / "clusters.toml").write_text('[pair]\nhosts = ["localhost", "n2.test"]\n', encoding="utf-8")
    steps: list[int] = []
    trainer = Trainer(str(tiny_model), on="pair", **GIVEN)
    run = trainer.train(dataset, steps=3, callback=lambda step, loss: steps.append(step))
    assert (run.status, steps) == (Status.COMPLETED, [1, 2, 3])
    assert {call["host"] for call in hosts.calls()} == {"n2.test"}
