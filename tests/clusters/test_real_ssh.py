"""What the stand-in promises, of a real sshd for each of two hosts on this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from subprocess import Popen
from typing import Any

import psutil
import pytest
from real_sshd import missing, real_sshd
from waiting import wait_for_step, wait_until

from backpropagate.training.config.settings import load_settings
from backpropagate.training.errors import ClusterError
from backpropagate.training.runs.folder import Status
from backpropagate.training.service import TrainingService

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.slow,
    pytest.mark.nightly,
    pytest.mark.skipif(missing() is not None, reason=missing() or ""),
]
GIVEN: dict[str, Any] = {"device": "cpu", "batch_size": 4, "lora_r": 4, "threads": 1}


@pytest.fixture
def daemons(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Popen[bytes]]]:
    home.mkdir(parents=True)
    text = '[pair]\nhosts = ["n1", "n2"]\n[stranger]\nhosts = ["n1", "unknown.invalid"]\n'
    (home / "clusters.toml").write_text(text, encoding="utf-8")
    with real_sshd(tmp_path / "ssh", ["n1", "n2"]) as daemons:
        monkeypatch.setenv("PATH", f"{tmp_path}/ssh/bin{os.pathsep}{os.environ['PATH']}")
        yield daemons
        for process in _processes_of(home):  # of a test that has failed
            with suppress(psutil.NoSuchProcess):
                process.kill()


def _processes_of(folder: Path) -> list[psutil.Process]:
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if str(folder) in " ".join(process.cmdline()):
                found.append(process)
    return found


async def test_two_hosts_learn_what_one_machine_does_and_end_with_a_connection(
    daemons: dict[str, Popen[bytes]], dataset: Path, tiny_model: Path
) -> None:
    service = TrainingService(load_settings())
    shared = await service.train(dataset, tiny_model, on="pair", gpus=2, steps=4, **GIVEN)
    alone = await service.train(dataset, tiny_model, steps=4, **GIVEN)
    views = [await service.wait(run.run_id) for run in (shared, alone)]
    assert [view.status for view in views] == [Status.COMPLETED, Status.COMPLETED]
    assert views[0].losses == pytest.approx(views[1].losses, abs=1e-6)
    assert [getattr(view.result, "gpus", 0) for view in views] == [4, 1]

    given = GIVEN | {"steps": 100_000, "checkpoint_every_steps": 5}
    longer = await service.train(dataset, tiny_model, on="pair", **given)
    run = service.store.find(longer.run_id)
    wait_for_step(run, 7)
    children = psutil.Process(daemons["n2"].pid).children(recursive=True)
    connections = [child for child in children if child.name().startswith("sshd")]
    for connection in connections:
        connection.suspend()  # it stays open and carries nothing: as of a network that is cut
    wait_until(lambda: service.store.observe(run).ended_at, "the end of the run")
    state = service.store.observe(run)
    assert state.status is Status.INTERRUPTED and state.error is not None
    assert "'n2' cannot be reached" in state.error.message or "does not answer" in state.error.message
    wait_until(lambda: not _processes_of(run.path), "the end of all processes")
    for connection in connections:
        connection.resume()

    await service.resume(run.run_id)
    wait_for_step(run, (await service.get(run.run_id)).step + 3)
    await service.cancel(run.run_id)
    view = await service.wait(run.run_id)
    assert (view.status, view.attempt) == (Status.CANCELLED, 2) and view.adapter_path


async def test_a_host_that_ssh_does_not_know_is_refused_with_its_reason(
    daemons: dict[str, Popen[bytes]], dataset: Path, tiny_model: Path, tmp_path: Path
) -> None:
    service = TrainingService(load_settings())
    with pytest.raises(ClusterError, match=r"'unknown\.invalid' cannot be reached by ssh: Could not resolve"):
        await service.train(dataset, tiny_model, on="stranger", **GIVEN)
    (tmp_path / "ssh" / "known_hosts").write_text("", encoding="utf-8")
    with pytest.raises(ClusterError, match="'n1' cannot be reached by ssh: Host key verification failed"):
        await service.train(dataset, tiny_model, on="pair", **GIVEN)
    assert service.store.ids() == []
