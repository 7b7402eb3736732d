"""Twenty kills: whenever a run's worker is killed, the run goes on and ends as if nothing had happened.

    python benchmarks/kill_matrix.py [--seed 0]      about ten minutes

First an undisturbed run: 60 steps of a small model through the real service and its real worker on one
thread, with a checkpoint every 7 steps. Then twenty more of the same, each killed (SIGKILL) at another moment
and resumed until it has completed: two as it starts, twelve at random moments that are spread evenly over
the life of the undisturbed run, four while a checkpoint is being written and two while the adapter is being
saved. Each must end with the undisturbed run's losses, step for step, and with its adapter, byte for byte,
having done at most one checkpoint's interval of steps twice.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import anyio
import psutil
from workload import make_importable, table

make_importable()
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

from backpropagate.training.config.specs import TrainSpec  # noqa: E402
from backpropagate.training.requests.train import train_spec  # noqa: E402
from backpropagate.training.runs.event_log import read_events  # noqa: E402
from backpropagate.training.runs.folder import ENDED, RunFolder, Status  # noqa: E402
from backpropagate.training.service import TrainingService  # noqa: E402

STEPS = 60
INTERVAL = 7
LOOK_S = 0.001
MOST_RESUMES = 3
SHAPE = {"hidden_size": 192, "intermediate_size": 512, "num_hidden_layers": 4}


class Moment(Protocol):
    """When to strike."""

    def has_come(self, run: RunFolder) -> bool: ...


@dataclass(frozen=True)
class AfterEvent:
    """`delay_s` seconds after an event like `event` was written."""

    event: Event
    delay_s: float

    def has_come(self, run: RunFolder) -> bool:
        latest = time.time() - self.delay_s
        return any(alike(self.event, event) and written(event) <= latest for event in events_of(run))

    def __str__(self) -> str:
        what = self.event.get("phase") or f"{self.event.kind} {self.event.get('step', '')}".strip()
        return f"{self.delay_s * 1000:.0f} ms after {what}"


@dataclass(frozen=True)
class WhileFolder:
    """When a folder of this pattern is in the run's."""

    name: str
    pattern: str

    def has_come(self, run: RunFolder) -> bool:
        return any(run.path.glob(self.pattern))

    def __str__(self) -> str:
        return self.name


def alike(one: Event, other: Event) -> bool:
    return all(one.get(name) == other.get(name) for name in ("phase", "step")) and one.kind == other.kind


def written(event: Event) -> float:
    return datetime.fromisoformat(event.t).timestamp()


def events_of(run: RunFolder) -> list[Event]:
    return read_events(run.events_path)[0]


def moments(calm: RunFolder, generator: random.Random) -> Iterator[Moment]:
    """Two at the start, twelve over the life of the undisturbed run, four in checkpoints, two at the end."""
    events = events_of(calm)
    start, life = written(events[0]), written(events[-1]) - written(events[0])
    yield AfterEvent(events[0], 0.2 * generator.random())
    yield AfterEvent(events[0], 0.2 + 0.8 * generator.random())
    for number in range(12):
        moment = start + life * (number + generator.random()) / 12
        before = [event for event in events if written(event) <= moment]
        latest = next(e for e in reversed(before) if not any(alike(e, o) for o in before[: before.index(e)]))
        yield AfterEvent(latest, moment - written(latest))
    for step in sorted(generator.sample(range(INTERVAL, STEPS, INTERVAL), 4)):
        yield WhileFolder(f"writing checkpoint {step}", f"checkpoints/.writing-step-{step:06d}")
    yield WhileFolder("the engine writing its adapter", ".writing-.adapter-of-the-engine")
    yield WhileFolder("saving the adapter", ".adapter-*.part")


async def end_of(service: TrainingService, run: RunFolder) -> Status:
    async for _ in service.watch(run.run_id):
        pass
    return run.state().status


async def strike(run: RunFolder, moment: Moment) -> bool:
    """Kill the run's worker when the moment has come; False if it had ended before."""
    while not moment.has_come(run):
        if run.state().status in ENDED:
            return False
        await anyio.sleep(LOOK_S)
    for child in psutil.Process().children():
        if str(run.path) in child.cmdline():
            child.kill()
            return True
    return False


def state_of(run: RunFolder) -> str:
    """What the kill has left."""
    steps = [event.get("step") for event in events_of(run) if event.kind == "step"]
    folders = [path.name for path in run.path.glob("checkpoints/*")]
    whole = max((name.removeprefix("step-") for name in folders if name.startswith("step-")), default="none")
    half = ", half a checkpoint" if any(name.startswith(".writing") for name in folders) else ""
    half += ", half an adapter" if any(run.path.glob(".*adapter*")) else ""
    return f"{run.state().status.value}: step {max(steps, default=0)}, checkpoint {whole.lstrip('0')}{half}"


def losses(run: RunFolder) -> dict[int, float]:
    """Of each step; one that was done twice counts as it was done last."""
    return {event.get("step"): event.get("loss") for event in events_of(run) if event.kind == "step"}


def done_twice(run: RunFolder) -> int:
    steps = [event.get("step") for event in events_of(run) if event.kind == "step"]
    return sum(max(0, before - after + 1) for before, after in pairwise(steps))


def faults(run: RunFolder, calm: RunFolder, status: Status) -> list[str]:
    if status is not Status.COMPLETED:
        return [f"{status.value}: {run.state().error}"]
    found = []
    if losses(run) != losses(calm) or len(losses(run)) != STEPS:
        found.append("OTHER LOSSES")
    name = "adapter_model.safetensors"
    if (run.adapter_path / name).read_bytes() != (calm.adapter_path / name).read_bytes():
        found.append("ANOTHER ADAPTER")
    if done_twice(run) > INTERVAL:
        found.append(f"MORE THAN {INTERVAL} STEPS LOST")
    return found


async def killed_once(
    service: TrainingService, spec: TrainSpec, calm: RunFolder, moment: Moment
) -> tuple[list[str], bool]:
    """One run that is killed at `moment`: its row of the table, and whether it is as it should be."""
    run = service.store.find((await service.submit(spec)).run_id)
    struck = await strike(run, moment)
    status = await end_of(service, run)
    left = state_of(run) if struck else "HAD ENDED BEFORE"
    attempts = 1
    while status is not Status.COMPLETED and attempts <= MOST_RESUMES:
        await service.resume(run.run_id)
        status = await end_of(service, run)
        attempts += 1
    found = faults(run, calm, status)
    row = [str(moment), left, str(attempts), str(done_twice(run)), ", ".join(found) or "equal"]
    print("  ".join(row), file=sys.stderr)
    return row, struck and not found


async def main(seed: int, folder: Path) -> int:
    from facts import write_dataset
    from tiny_model import build_tiny_model

    service = TrainingService()
    spec = train_spec(
        arguments={
            "dataset": str(write_dataset(folder / "facts.jsonl")),
            "model": str(build_tiny_model(folder / "model", **SHAPE)),
            "steps": STEPS,
            "batch_size": 8,
            "checkpoint_every_steps": INTERVAL,
            "lora_dropout": 0.1,
            "device": "cpu",
            "threads": 1,
        }
    )
    calm = service.store.find((await service.submit(spec)).run_id)
    assert await end_of(service, calm) is Status.COMPLETED, calm.state().error
    head = ["killed", "what that left", "attempts", "steps done twice", "end"]
    rows, good = [head], 0
    for moment in moments(calm, random.Random(seed)):
        row, as_it_should = await killed_once(service, spec, calm, moment)
        rows.append(row)
        good += as_it_should
    count = len(rows) - 1
    print(
        f"seed {seed}; undisturbed: loss {losses(calm)[1]:.4f} to {losses(calm)[STEPS]:.4f}\n\n{table(rows)}"
    )
    failed = "" if good == count else ": FAILED"
    print(f"\n{good} of {count} killed runs ended bit for bit as the undisturbed one{failed}")
    return int(good < count)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["BACKPROPAGATE_HOME"] = f"{scratch}/home"
        os.environ["BACKPROPAGATE_RUNTIME_DIR"] = f"{scratch}/slots"
        sys.exit(anyio.run(main, asked.seed, Path(scratch)))
