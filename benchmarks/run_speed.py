"""The speed of a run through the whole service, from its events, its plan and the cache of tokens."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from workload import make_importable


class Read(NamedTuple):
    """Steps that were read from the device together, and so have one time."""

    last: int
    at: float
    """When they had ended, in seconds."""


class Speed(NamedTuple):
    """Of the second half of a run's steps. What compiles and warms up lies in the first."""

    tokens_per_s: float
    """Useful tokens: all but padding."""
    tokens_per_step: float
    steps: int


def speed_of(run: Path) -> Speed:
    """Tokens of the second half by the time between its first and its last step's events.

    Raises:
        ValueError: the steps were read from the device at too few times.
    """
    first, last = second_half(reads_of(steps_of(run)))
    tokens = sum(tokens_of_steps(run, range(first.last, last.last)))
    steps = last.last - first.last
    return Speed(tokens / (last.at - first.at), tokens / steps, steps)


def steps_of(run: Path) -> list[dict[str, Any]]:
    lines = (run / "events.jsonl").read_text(encoding="utf-8").splitlines()
    return [event for event in map(json.loads, lines) if event["kind"] == "step"]


def reads_of(steps: Sequence[dict[str, Any]]) -> list[Read]:
    """On a GPU our loop reads several steps at a time: all of them have the speed of that moment."""
    reads: list[Read] = []
    speed: float | None = None
    for event in steps:
        if reads and event["tokens_per_s"] == speed:
            reads[-1] = Read(event["step"], reads[-1].at)
        else:
            reads.append(Read(event["step"], seconds(event["t"])))
        speed = event["tokens_per_s"]
    return reads


def second_half(reads: Sequence[Read]) -> tuple[Read, Read]:
    """The read that is nearest to half of the steps, and the last."""
    last = reads[-1]
    first = min(reads[:-1], key=lambda read: abs(2 * read.last - last.last), default=last)
    if first is last or 4 * first.last < last.last:
        raise ValueError(f"{last.last} steps were read at {len(reads)} times: too few to measure; give more.")
    return first, last


def tokens_of_steps(run: Path, steps: range) -> list[int]:
    """Useful tokens of each of these steps, counted from 0, in all processes together."""
    make_importable()
    from backpropagate.training.data.prepare import prepared_before
    from backpropagate.training.engine.loop.packing import step_order
    from backpropagate.training.engine.plan import Plan

    plan = Plan.from_record(json.loads((run / "plan.json").read_text(encoding="utf-8")))
    data = prepared_before(run.parent.parent / "cache" / "tokens", plan.tokens_key)
    assert data is not None, "the run's home has its tokens"
    lengths = data.train.lengths().tokens.tolist()
    order = step_order(plan, lengths)
    return [sum(lengths[example] for example in order.examples(step)) for step in steps]


def seconds(moment: str) -> float:
    return datetime.fromisoformat(moment.replace("Z", "+00:00")).timestamp()
