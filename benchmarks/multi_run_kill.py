"""Ten kills: a multi-run whose worker is killed is resumed, and ends as an undisturbed one.

    python benchmarks/multi_run_kill.py [--seed 0] [--kills 10] [--merge-scale auto]      ten to twenty min

First an undisturbed multi-run of four runs of 30 steps, merged by SLAO, through the real service and its
real worker on one thread, with a checkpoint every 4 steps. Then ten more of the same, each killed (SIGKILL)
at a random moment between the first step and the end, and resumed until it has completed. Each must end with
the undisturbed ledger and adapter, byte for byte. On this data `auto` tries five λ and takes 1; with `sqrt`
the merged adapter differs from the trained one.

A kill counts only if it struck: the worker died by the signal, its run is recorded as interrupted, and what
the next attempt did is shown. A kill that missed is tried again with a new multi-run. The program exits with
1 and names the kill if all tries missed, or if a multi-run did not end as it must.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import anyio
from kills import (
    MOST_RESUMES,
    MOST_TRIES,
    SHAPE,
    AfterEvent,
    alike,
    end_of,
    events_of,
    killed_run,
    written,
)
from workload import table

from backpropagate.training.config.specs import MultiRunSpec
from backpropagate.training.events import Step
from backpropagate.training.requests.multi_run import multi_run_spec
from backpropagate.training.runs.folder import RunFolder, Status
from backpropagate.training.service import TrainingService

RUNS, STEPS, INTERVAL = 4, 30, 4
EQUAL = ("ledger.json", "adapter/adapter_model.safetensors")


def steps_of(run: RunFolder) -> list[Step]:
    return [event for event in events_of(run) if isinstance(event, Step)]


def moments(calm: RunFolder, kills: int, generator: random.Random) -> Iterator[AfterEvent]:
    """Random moments, spread evenly from the first step to the end of the undisturbed multi-run."""
    steps, end = steps_of(calm), written(events_of(calm)[-1])
    start = written(steps[0])
    for number in range(kills):
        moment = start + (end - start) * (number + generator.random()) / kills
        latest = [step for step in steps if written(step) <= moment][-1]
        yield AfterEvent(latest, moment - written(latest))


def place(step: Step | None) -> str:
    return f"run {step.run}, step {step.step}" if step else "before its first step"


async def killed_once(
    service: TrainingService, spec: MultiRunSpec, calm: RunFolder, planned: AfterEvent
) -> tuple[list[str], bool]:
    """One multi-run that is killed at a moment: its row of the table, and whether it ended as it should."""
    run, moment, struck = await killed_run(service, spec, planned)
    assert isinstance(moment, AfterEvent) and isinstance(moment.event, Step)
    status = await end_of(service, run)
    struck = struck and status is Status.INTERRUPTED
    before = steps_of(run)
    merged = len(list((run.path / "merges").glob("run-*")))
    attempts = 1
    while status is not Status.COMPLETED and attempts <= MOST_RESUMES:
        await service.resume(run.run_id)
        status = await end_of(service, run)
        attempts += 1
    after = steps_of(run)[len(before) :]
    found = [name for name in EQUAL if (run.path / name).read_bytes() != (calm.path / name).read_bytes()]
    twice = sum(any(alike(one, other) for other in before) for one in after)
    row = [
        f"{moment.delay_s * 1000:.0f} ms after {place(moment.event)}",
        f"{merged} merges, {place(before[-1] if before else None)}" if struck else "THE KILL DID NOT STRIKE",
        place(after[0]) if after else "no step: all were trained",
        str(attempts),
        str(twice),
        f"OTHER {', '.join(found)}" if found else status.value if status is not Status.COMPLETED else "equal",
    ]
    print("  ".join(row), file=sys.stderr)
    return row, struck and not found and status is Status.COMPLETED


async def main(seed: int, kills: int, scale: str, folder: Path) -> int:
    from facts import write_dataset
    from tiny_model import build_tiny_model

    service = TrainingService()
    spec = multi_run_spec(
        arguments={
            "dataset": str(write_dataset(folder / "facts.jsonl")),
            "model": str(build_tiny_model(folder / "model", **SHAPE)),
            "batch_size": 8,
            "checkpoint_every_steps": INTERVAL,
            "lora_dropout": 0.1,
            "device": "cpu",
            "threads": 1,
        },
        multi={"num_runs": RUNS, "steps_per_run": STEPS, "merge_scale": scale},
    )
    calm = service.store.find((await service.submit(spec)).run_id)
    assert await end_of(service, calm) is Status.COMPLETED, calm.state().error
    rows = [["killed", "what that left", "resumed at", "attempts", "steps done twice", "end"]]
    good = 0
    for moment in moments(calm, kills, random.Random(seed)):
        row, as_it_should = await killed_once(service, spec, calm, moment)
        rows.append(row)
        good += as_it_should
    print(f"seed {seed}; at most {MOST_TRIES} tries for one kill\n\n{table(rows)}")
    print(f"\n{good} of {kills} kills struck, and the multi-run ended bit for bit as the undisturbed one")
    return int(good < kills)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--merge-scale", choices=["auto", "sqrt", "mean"], default="auto")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["BACKPROPAGATE_HOME"] = f"{scratch}/home"
        os.environ["BACKPROPAGATE_RUNTIME_DIR"] = f"{scratch}/slots"
        sys.exit(anyio.run(main, asked.seed, asked.kills, asked.merge_scale, Path(scratch)))
