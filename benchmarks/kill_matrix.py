"""Twenty kills: a run whose worker is killed is resumed, and its result equals an uninterrupted run's.

    python benchmarks/kill_matrix.py [--seed 0] [--only checkpoint] [--load-in-4bit]      about ten minutes

First an undisturbed run: 60 steps of a small model through the real service and its real worker on one
thread, with a checkpoint every 7 steps. Then twenty more of the same, each killed (SIGKILL) at another moment
and resumed until it has completed: two as it starts, twelve at random moments that are spread evenly over
the life of the undisturbed run, four while a checkpoint is written and two while the adapter is saved.
Each must end with the undisturbed run's losses, step for step, and with its adapter, byte for byte, and
repeat at most one checkpoint interval of steps.

A kill counts only if it struck: the worker died before its run had ended, and a kill during a write left a
half-written folder. A kill that missed is tried again with a new run. The program exits with 1 and names the
kill if all tries missed, or if a run did not end as it must.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import anyio
from kills import MOST_RESUMES, SHAPE, AfterEvent, Moment, alike, end_of, events_of, killed_run, written
from workload import table

from backpropagate.training.config.specs import TrainSpec
from backpropagate.training.engine.loop.checkpoints import Checkpoints
from backpropagate.training.events import Step
from backpropagate.training.files.atomic_folder import part_of
from backpropagate.training.requests.train import train_spec
from backpropagate.training.runs.folder import RunFolder, Status
from backpropagate.training.service import TrainingService

STEPS = 60
INTERVAL = 7


@dataclass(frozen=True)
class WhileWriting:
    """While a folder of the run is written and does not have its name yet."""

    name: str
    folder_of: Callable[[RunFolder], Path]

    def has_come(self, run: RunFolder) -> bool:
        return part_of(self.folder_of(run)).exists()

    def was_met(self, run: RunFolder) -> bool:
        return self.has_come(run)

    def after_a_miss(self) -> Moment:
        return self

    def __str__(self) -> str:
        return self.name


def checkpoint_at(step: int) -> Callable[[RunFolder], Path]:
    return lambda run: Checkpoints(run.checkpoints_path).path(step)


def engine_adapter(run: RunFolder) -> Path:
    """Where the engine writes its adapter, before tokenizer and card are added to it."""
    return Path((run.plan() or {"adapter": run.path})["adapter"])


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
        yield WhileWriting(f"writing checkpoint {step}", checkpoint_at(step))
    yield WhileWriting("the engine writing its adapter", engine_adapter)
    yield WhileWriting("saving the adapter", lambda run: run.adapter_path)


def state_of(run: RunFolder) -> str:
    """What the kill has left."""
    steps = [event.step for event in events_of(run) if isinstance(event, Step)]
    checkpoints = Checkpoints(run.checkpoints_path)
    whole = max(checkpoints.steps(), default="none")
    half = any(part_of(checkpoints.path(step)).exists() for step in range(1, STEPS + 1))
    halves = ", half a checkpoint" * half
    halves += ", half an adapter" * any(
        part_of(folder).exists() for folder in (run.adapter_path, engine_adapter(run))
    )
    return f"{run.state().status.value}: step {max(steps, default=0)}, checkpoint {whole}{halves}"


def losses(run: RunFolder) -> dict[int, float]:
    """Of each step; one that was done twice counts as it was done last."""
    return {event.step: event.loss for event in events_of(run) if isinstance(event, Step)}


def done_twice(run: RunFolder) -> int:
    steps = [event.step for event in events_of(run) if isinstance(event, Step)]
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
    service: TrainingService, spec: TrainSpec, calm: RunFolder, planned: Moment
) -> tuple[list[str], bool]:
    """One run that is killed at a moment: its row of the table, and whether it is as it should be."""
    run, moment, struck = await killed_run(service, spec, planned)
    status = await end_of(service, run)
    left = state_of(run) if struck else "THE KILL DID NOT STRIKE"
    attempts = 1
    while status is not Status.COMPLETED and attempts <= MOST_RESUMES:
        await service.resume(run.run_id)
        status = await end_of(service, run)
        attempts += 1
    found = faults(run, calm, status)
    row = [str(moment), left, str(attempts), str(done_twice(run)), ", ".join(found) or "equal"]
    print("  ".join(row), file=sys.stderr)
    return row, struck and not found


async def main(seed: int, only: str, in_4bit: bool, folder: Path) -> int:
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
            "load_in_4bit": in_4bit,
            "device": "cpu",
            "threads": 1,
        }
    )
    calm = service.store.find((await service.submit(spec)).run_id)
    assert await end_of(service, calm) is Status.COMPLETED, calm.state().error
    rows = [["killed", "what that left", "attempts", "steps done twice", "end"]]
    failed: list[str] = []
    for moment in moments(calm, random.Random(seed)):
        if only not in str(moment):
            continue
        row, as_it_should = await killed_once(service, spec, calm, moment)
        rows.append(row)
        if not as_it_should:
            failed.append(f"{row[0]} ({row[1]}; {row[-1]})")
    count = len(rows) - 1
    print(
        f"seed {seed}; undisturbed: loss {losses(calm)[1]:.4f} to {losses(calm)[STEPS]:.4f}\n\n{table(rows)}"
    )
    good = count - len(failed)
    print(f"\n{good} of {count} kills struck, and the run ended bit for bit as the undisturbed one")
    for kill in failed:
        print(f"FAILED: {kill}")
    return int(bool(failed) or not count)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", metavar="TEXT", help="kills whose name contains this")
    parser.add_argument("--load-in-4bit", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["BACKPROPAGATE_HOME"] = f"{scratch}/home"
        os.environ["BACKPROPAGATE_RUNTIME_DIR"] = f"{scratch}/slots"
        sys.exit(anyio.run(main, asked.seed, asked.only, asked.load_in_4bit, Path(scratch)))
