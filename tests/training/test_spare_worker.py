"""A worker that has imported its libraries before there is a run: as any other, and never left behind."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from mcp import Client
from rarer import with_rarer
from waiting import busy_device, phases_of, small_spec, steps_of, wait_for_phase, wait_until

from backpropagate.server.app import build_server
from backpropagate.training.config.settings import load_settings
from backpropagate.training.hardware import devices
from backpropagate.training.runs.folder import RunFolder, Status
from backpropagate.training.service import TrainingService
from backpropagate.training.submission import spare_worker

pytestmark = pytest.mark.anyio

OF_TIME = {"before_first_step", "tokens_per_s", "peak_memory_mib", "verdict"}
OF_ATTEMPT = {"run_id", "pid", "result", "created_at", "queued_at", "started_at", "ended_at", "updated_at"}
POSIX = pytest.mark.skipif(os.name == "nt", reason="Windows has no such signal")


def is_gone(process: psutil.Process) -> bool:
    """A container may have nobody who buries the children of the dead."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def spares() -> list[psutil.Process]:
    """Those of this process, also the ones that have become workers."""
    found: list[psutil.Process] = []
    for child in psutil.Process().children():
        with suppress(psutil.Error):  # it ends meanwhile
            if any(word.endswith("worker.spare") for word in child.cmdline()):
                found.append(child)
    return found


@pytest.fixture
def keeping(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TrainingService]:
    """A service that keeps a spare, whatever memory this machine has."""
    monkeypatch.setenv("BACKPROPAGATE_SPARE_WORKER_S", "600")
    monkeypatch.setattr(spare_worker, "LEAST_MIB", 0)
    service = TrainingService(load_settings())
    with service.keeping_spare():
        yield service
    wait_until(lambda: not spares(), "the end of the spares")


def spare_of(service: TrainingService) -> psutil.Process:
    before = spares()
    service.dispatch.announce("inspect")
    (spare,) = [spare for spare in spares() if spare not in before] or before
    return spare


async def ended(service: TrainingService, run_id: str) -> tuple[RunFolder, Status]:
    view = await service.wait(run_id)
    assert view.status != "failed", view.error
    return service.store.find(run_id), Status(view.status)


def told(run: RunFolder) -> dict[str, Any]:
    """All that a run has left, without ids and times; of progress, what was done in which order."""
    state = run.state()
    assert state.result is not None
    return {
        "files": sorted(str(path.relative_to(run.path)) for path in run.path.rglob("*")),
        "adapter": (run.adapter_path / "adapter_model.safetensors").read_bytes(),
        "result": state.result.model_dump(exclude=OF_TIME),
        "log": re.sub(r"\S+Z |run_id=\S+", "", run.log_path.read_text()),
        "losses": [step.loss for step in steps_of(run)],
        "phases": list(dict.fromkeys(phases_of(run))),
        "state": state.model_dump(exclude=OF_ATTEMPT),
    }


@pytest.mark.nightly
@pytest.mark.slow
async def test_a_training_by_a_spare_leaves_what_one_by_a_new_worker_leaves(
    service: TrainingService, keeping: TrainingService, dataset: Path, tiny_model: Path
) -> None:
    spec = small_spec(dataset, tiny_model)
    alone, _ = await ended(service, (await service.submit(spec)).run_id)
    spare = spare_of(keeping)
    run, status = await ended(keeping, (await keeping.submit(spec)).run_id)
    assert (status, run.state().pid) == (Status.COMPLETED, spare.pid)
    assert told(run) == told(alone)
    wait_until(lambda: spares() and spares() != [spare], "a spare for the training after this one")


async def test_a_spare_that_has_a_run_is_a_worker_of_low_priority_in_its_folder_that_can_be_cancelled(
    service: TrainingService, keeping: TrainingService, dataset: Path, tiny_model: Path
) -> None:
    device, seen = busy_device(service.runtime_folder), []
    for one in (service, keeping):
        spare = spare_of(keeping)
        run = one.store.find((await one.submit(small_spec(dataset, tiny_model))).run_id)
        wait_for_phase(run, "waiting")
        worker = psutil.Process(run.state().pid)
        assert (worker == spare) == (one is keeping)
        assert Path(worker.cwd()) == run.path
        seen.append((worker.nice(), os.name == "nt" or os.getsid(worker.pid) == worker.pid))
        await one.cancel(run.run_id)
        assert (await ended(one, run.run_id))[1] is Status.CANCELLED
    device.release()
    assert seen[0] == seen[1]


@pytest.mark.parametrize("what", with_rarer(["a variable"], ["a library", "the device"]))
async def test_a_run_that_would_be_started_otherwise_than_the_spare_gets_a_worker_of_its_own(
    what: str,
    keeping: TrainingService,
    dataset: Path,
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (libraries := tmp_path / "libraries").mkdir()
    monkeypatch.setattr(spare_worker.sysconfig, "get_path", lambda name: str(libraries))
    with monkeypatch.context() as another:
        if what == "the device":
            another.setattr(spare_worker, "training_devices", lambda wanted: ["GPU-1"])
        spare = spare_of(keeping)
    if what == "a variable":
        monkeypatch.setenv("BACKPROPAGATE_LOG_JSON", "true")
    if what == "a library":
        os.utime(libraries, (1, 1))
    device = busy_device(keeping.runtime_folder)
    run = keeping.store.find((await keeping.submit(small_spec(dataset, tiny_model))).run_id)
    wait_for_phase(run, "waiting")
    assert run.state().pid != spare.pid
    assert (what == "a variable") == run.log_path.read_text().startswith("{")
    await keeping.cancel(run.run_id)
    await ended(keeping, run.run_id)
    device.release()
    wait_until(lambda: spares() and spares() != [spare], "a spare as it would be now")


@pytest.mark.slow
async def test_a_run_starts_also_if_the_spare_was_killed(
    keeping: TrainingService, dataset: Path, tiny_model: Path
) -> None:
    spare = spare_of(keeping)
    spare.kill()
    wait_until(lambda: not spares(), "its end")
    run, status = await ended(keeping, (await keeping.submit(small_spec(dataset, tiny_model))).run_id)
    assert status is Status.COMPLETED and run.state().pid != spare.pid


@pytest.mark.slow
@POSIX
async def test_a_run_starts_also_if_the_spare_is_killed_before_it_has_read_of_the_run(
    keeping: TrainingService, dataset: Path, tiny_model: Path
) -> None:
    spare = spare_of(keeping)
    spare.suspend()
    submitted = await keeping.submit(small_spec(dataset, tiny_model))
    assert keeping.store.find(submitted.run_id).state().pid is None
    spare.kill()
    run, status = await ended(keeping, submitted.run_id)
    assert status is Status.COMPLETED and run.state().pid != spare.pid


async def test_no_spare_is_kept_where_it_is_off_or_memory_is_short_or_nothing_lives_long_enough(
    service: TrainingService, keeping: TrainingService, monkeypatch: pytest.MonkeyPatch
) -> None:
    off = service.settings  # of all other tests
    assert off.spare_worker_s == 0
    TrainingService(keeping.settings).dispatch.announce("train")
    with (other := TrainingService(off)).keeping_spare():
        other.dispatch.announce("train")
    keeping.dispatch.announce("push")
    monkeypatch.setattr(spare_worker, "LEAST_MIB", 2**40)
    keeping.dispatch.announce("train")
    assert not spares()


async def test_after_a_spare_that_failed_there_is_no_other(
    keeping: TrainingService, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[subprocess.Popen[bytes]] = []

    def broken(*_: object) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", "raise SystemExit(1)"]
        started.append(subprocess.Popen(command, stdin=subprocess.PIPE, bufsize=0))
        return started[-1]

    monkeypatch.setattr(spare_worker, "spawn_spare", broken)
    for _ in range(3):
        keeping.dispatch.announce("train")
        wait_until(lambda: started[0].poll() is not None, "its end")
    assert len(started) == 1


async def test_a_server_has_a_spare_once_a_dataset_was_inspected_and_takes_it_with_it(
    keeping: TrainingService, dataset: Path, tiny_model: Path, tmp_path: Path
) -> None:
    async with Client(build_server(keeping, [tmp_path, tiny_model.parent])) as client:
        assert not spares()
        asked = {"dataset": str(dataset), "model": str(tiny_model), "wait_s": 600}
        assert not (await client.call_tool("inspect_dataset", asked)).is_error
        wait_until(spares, "a spare")
        (spare,) = spares()
        await client.call_tool("plan_train", {**asked, "steps": 3})
        assert spares() == [spare]
    wait_until(lambda: is_gone(spare), "the spare's end")


SERVER = """
import sys, anyio
from pathlib import Path
from waiting import small_spec
from backpropagate.training.service import TrainingService
from backpropagate.training.submission import spare_worker
import psutil
spare_worker.LEAST_MIB = 0
service = TrainingService()
kept = service.keeping_spare()
kept.__enter__()
service.dispatch.announce("inspect")
(spare,) = psutil.Process().children()
run = anyio.run(service.submit, small_spec(*map(Path, sys.argv[1:]))).run_id if len(sys.argv) > 1 else ""
print(spare.pid, run, flush=True)
sys.stdin.read()
"""


def a_killed_server(*arguments: Path) -> tuple[psutil.Process, str]:
    """Its spare, and the run that was submitted to it just before."""
    kept = {"BACKPROPAGATE_SPARE_WORKER_S": "600", "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", SERVER, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | kept,
    ) as server:
        assert server.stdout is not None
        pid, _, run_id = server.stdout.readline().strip().partition(" ")
        spare = psutil.Process(int(pid))
        server.kill()
    return spare, run_id


def test_a_spare_ends_with_a_server_that_is_killed(home: Path) -> None:
    spare, _ = a_killed_server()
    wait_until(lambda: is_gone(spare), "the spare's end")
    assert not home.exists() or not any(home.rglob("*.*"))


@pytest.mark.slow
async def test_a_run_that_a_spare_has_survives_a_server_that_is_killed(
    service: TrainingService, dataset: Path, tiny_model: Path
) -> None:
    spare, run_id = a_killed_server(dataset, tiny_model)
    run, status = await ended(service, run_id)
    assert (status, run.state().pid) == (Status.COMPLETED, spare.pid)


BECOMING = """
import json, os, sys
from backpropagate.training.worker import spare

def libraries():
    os.environ.update(SET_BY_A_LIBRARY="1", FOR_ALL="of a library")

def work():
    print(json.dumps([dict(os.environ), os.getcwd(), sys.argv[1:], sys.stdin.read()]))
    return 7

spare.import_ahead, spare.worker.main = libraries, work
spare.cuda_has_started = lambda: len(sys.argv) > 2 and sys.argv[2] == "cuda"
sys.exit(spare.main())
"""


def becoming(given: str | None, *arguments: str) -> int:
    """The exit code of a spare without imports; None leaves its stdin open."""
    command = [sys.executable, "-c", BECOMING, *arguments]
    environment = os.environ | {"FOR_ALL": "mine"}
    with subprocess.Popen(command, stdin=subprocess.PIPE, env=environment) as process:
        assert process.stdin is not None
        if given is not None:
            process.stdin.write(given.encode())
            process.stdin.close()
        return process.wait()


def test_a_run_has_the_environment_that_it_is_given_not_what_libraries_made_of_it(tmp_path: Path) -> None:
    given = json.dumps({"run": str(tmp_path), "environment": {"TRACEPARENT": "00-1-2-01"}})
    assert becoming(f"{given}\n", "600", "survives-client") == 7
    environment, folder, arguments, stdin = json.loads((tmp_path / "worker.log").read_text())
    for name, value in {"TRACEPARENT": "00-1-2-01", "FOR_ALL": "mine", "PATH": os.environ["PATH"]}.items():
        assert environment[name] == value
    assert "SET_BY_A_LIBRARY" not in environment
    assert Path(folder) == tmp_path
    assert arguments == [str(tmp_path), "survives-client"]
    assert stdin == ""


def test_a_spare_ends_when_nothing_comes_in_time_when_its_stdin_ends_and_when_cuda_is_open() -> None:
    assert becoming(None, "0") == 0
    assert becoming("", "600") == 0
    assert becoming('{"run": "/a/part', "600") == 0
    assert becoming(None, "600", "cuda") == 1


@pytest.mark.parametrize(("answer", "started"), [(devices.NOT_INITIALIZED, False), (0, True), (100, True)])
def test_whether_cuda_has_started_is_asked_of_its_driver(
    answer: int, started: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Driver:
        def __init__(self, name: str) -> None: ...

        def cuDeviceGetCount(self, count: object) -> int:
            return answer

    monkeypatch.setattr(devices.ctypes, "CDLL", Driver)
    assert devices.cuda_has_started() is started


UNASKED = """
import sys
import torch

def refuse(*_, **__):
    raise SystemExit("CUDA was asked")

for name in ("_lazy_init", "is_available", "device_count", "current_device", "get_device_properties"):
    setattr(torch.cuda, name, refuse)
from backpropagate.training.worker import spare
spare.import_ahead()
assert "peft" not in sys.modules and "bitsandbytes" not in sys.modules
"""


@pytest.mark.nightly
@pytest.mark.slow
def test_what_is_imported_ahead_asks_nothing_of_cuda() -> None:
    subprocess.run([sys.executable, "-c", UNASKED], check=True)
