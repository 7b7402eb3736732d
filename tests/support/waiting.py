"""Waiting for what another process does, without fixed sleeps."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from backpropagate.training.config.specs import TrainSpec
from backpropagate.training.events import Event, Phase, Step
from backpropagate.training.requests.train import train_spec
from backpropagate.training.runs.device_queue import DeviceQueue
from backpropagate.training.runs.event_log import read_events
from backpropagate.training.runs.folder import RunFolder

PATIENCE_S = 120.0


def wait_until(condition: Callable[[], object], what: str) -> None:
    """Return when `condition` holds; fail, naming `what`, when it does not for two minutes."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.02)


def events_of(run: RunFolder) -> list[Event]:
    return read_events(run.events_path)[0]


def phases_of(run: RunFolder) -> list[str]:
    return [event.phase for event in events_of(run) if isinstance(event, Phase)]


def steps_of(run: RunFolder) -> list[Step]:
    return [event for event in events_of(run) if isinstance(event, Step)]


def wait_for_phase(run: RunFolder, phase: str) -> None:
    wait_until(lambda: phase in phases_of(run), f"phase {phase}")


def wait_for_step(run: RunFolder, step: int) -> None:
    wait_until(lambda: any(event.step >= step for event in steps_of(run)), f"step {step}")


def kill_worker(run: RunFolder) -> None:
    """SIGKILL, as the out-of-memory killer does."""
    pid = run.state().pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL if os.name != "nt" else signal.SIGTERM)


def busy_device(runtime: Path) -> DeviceQueue:
    """Takes the CPU's slot, as a long run of somebody else's would; `release()` gives it back."""
    line = DeviceQueue(runtime, "cpu")
    assert line.take_unless_busy(["cpu"]) == "cpu"
    return line


def small_spec(dataset: Path, model: Path, **arguments: object) -> TrainSpec:
    """A spec that a tiny model carries out in a moment."""
    return train_spec(
        arguments={
            "dataset": str(dataset),
            "model": str(model),
            "steps": 3,
            "batch_size": 2,
            "lora_r": 4,
            "threads": 1,
            **arguments,
        }
    )
