"""A clock that was set back stalls nothing, and a lock that somebody holds is waited for only so long."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import pytest

from backpropagate.training.config.settings import load_settings
from backpropagate.training.config.specs import DataGroup, ModelGroup, TrainSpec
from backpropagate.training.errors import LockHeldError
from backpropagate.training.runs.device_queue import MOST_WAITING, DeviceQueue
from backpropagate.training.runs.folder import RunFolder, Status
from backpropagate.training.runs.identity import is_recent, machine, now
from backpropagate.training.runs.locks import Lock
from backpropagate.training.service import TrainingService
from backpropagate.training.submission.dispatch import Dispatch

TOMORROW = (datetime.now(UTC) + timedelta(days=1)).isoformat()
HOLD = """
import sys
from pathlib import Path
from backpropagate.training.runs.locks import Lock
with Lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_queued_run_from_before_the_clock_was_set_back_gets_a_worker(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[str] = []
    monkeypatch.setattr(Dispatch, "start", lambda self, run: started.append(run.run_id))
    service = TrainingService(load_settings())
    spec = TrainSpec(model=ModelGroup(name="smollm2-135m"), data=DataGroup(source="/nowhere/a.jsonl"))
    fresh, old = service.store.create(spec), service.store.create(spec)
    old.write_state(old.state().model_copy(update={"created_at": TOMORROW}))
    anyio.run(service.recover)
    assert started == [old.run_id]
    assert fresh.state().status is Status.QUEUED


def test_a_run_that_ended_in_the_future_is_not_recent() -> None:
    assert is_recent(now(), 60) and not is_recent(TOMORROW, 60)


def test_what_was_left_half_made_before_the_clock_was_set_back_is_swept(service: TrainingService) -> None:
    left = service.store.runs / ".new-a"
    left.mkdir(parents=True)
    future = time.time() + 10**6
    os.utime(left, (future, future))
    service.store.sweep()
    assert not left.exists()


def test_tickets_of_dead_starters_from_the_future_do_not_fill_the_queue(tmp_path: Path) -> None:
    queue = DeviceQueue(tmp_path, "cpu")
    tickets = tmp_path / machine() / "cpu-tickets"
    future = time.time() + 86_400
    for number in range(MOST_WAITING):
        ticket = tickets / f"{time.time_ns() + 10**14:020d}~dead-{number}"
        ticket.touch()
        os.utime(ticket, (future, future))
    queue.join("a")
    assert [ticket.name.partition("~")[2] for ticket in tickets.iterdir()] == ["a"]


def test_a_run_that_joins_after_the_clock_was_set_back_is_behind_those_that_wait(tmp_path: Path) -> None:
    queue, later = DeviceQueue(tmp_path, "cpu"), DeviceQueue(tmp_path, "cpu")
    (tmp_path / machine() / "cpu-tickets" / f"{time.time_ns() + 10**14:020d}~first").touch()
    queue.hold_place("first")
    assert queue.try_take("first", []) is None
    later.join("second")
    later.hold_place("second")
    assert later.ahead("second") == 1


def test_whoever_waits_in_vain_is_told_who_holds_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "gate.lock"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout and holder.stdout.readline() == "held\n"
        with pytest.raises(LockHeldError, match=rf"process {holder.pid} \(") as caught, Lock(path, 0.05):
            pass
        assert caught.value.retryable and str(path) in caught.value.message
        holder.communicate()
    with Lock(path, 0.05):
        pass


@pytest.mark.skipif(os.name == "nt", reason="rights are inherited there")
def test_locks_and_tickets_are_their_owners_only(tmp_path: Path) -> None:
    DeviceQueue(tmp_path, "cpu").join("a")
    folder = tmp_path / machine()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o77 for path in folder.glob("*.lock")} == {0}
    folder.chmod(0o755)
    DeviceQueue(tmp_path, "cpu")
    assert folder.stat().st_mode & 0o777 == 0o700
    assert RunFolder(tmp_path).lock().try_acquire() and (tmp_path / "worker.lock").stat().st_mode & 0o77 == 0
