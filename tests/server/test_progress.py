"""The stream of progress messages of one call, on a clock of the test's own."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backpropagate.server.progress import ProgressStream
from backpropagate.training.events import EVENTS, Event

pytestmark = pytest.mark.anyio


class Client:
    """A clock, and a record of what was sent."""

    def __init__(self) -> None:
        self.now = 0.0
        self.sent: list[tuple[float, float, float | None, str]] = []
        self.stream = ProgressStream(self.send, lambda: self.now)

    async def send(self, value: float, total: float | None, message: str) -> None:
        self.sent.append((self.now, value, total, message))

    async def show(self, *events: Event, after: float = 0.25) -> None:
        await self.stream.show(events)
        self.now += after


def event(kind: str, **fields: Any) -> Event:
    return EVENTS[kind](seq=1, t="2026-01-01T00:00:00.000Z", **fields)


def step(number: int, total: int = 1000) -> Event:
    return event("step", step=number, total_steps=total, loss=1.5, tokens_per_s=100.0, eta_s=61.0)


async def test_the_first_message_is_sent_at_once_and_then_at_most_two_a_second() -> None:
    client = Client()
    for number in range(1, 101):
        await client.show(step(number), after=0.1)
    times = [moment for moment, *_ in client.sent]
    assert times[0] == 0.0
    assert all(later - earlier >= 0.5 for earlier, later in itertools.pairwise(times))


async def test_a_silent_run_is_shown_alive_at_least_every_fifteen_seconds_and_always_rising() -> None:
    client = Client()
    await client.show(event("phase", phase="loading", message="loading"))
    for _ in range(40_000):
        await client.show()
    times = [moment for moment, *_ in client.sent]
    values = [value for _, value, *_ in client.sent]
    assert all(later - earlier <= 15 for earlier, later in itertools.pairwise(times))
    assert all(later > earlier for earlier, later in itertools.pairwise(values))
    assert values[-1] < 1 and len(values) > 900


async def test_the_total_is_reached_by_the_end_alone() -> None:
    client = Client()
    await client.show(step(10, 10), after=1.0)
    await client.show(event("phase", phase="saving", message="saving the adapter"), after=1.0)
    assert client.sent[-1][1] < 10
    await client.show(event("done", status="completed"))
    assert client.sent[-1][1:] == (10.0, 10.0, "completed")


async def test_a_step_is_told_with_loss_speed_and_time_left() -> None:
    client = Client()
    await client.show(step(12))
    assert client.sent[0][3] == "step 12/1000 · loss 1.5000 · 100 tokens/s · 1m 01s left"


@given(st.lists(st.tuples(st.sampled_from(["quiet", "phase", "step"]), st.floats(0.05, 30)), max_size=60))
async def test_progress_rises_strictly_whatever_happens(moves: list[tuple[str, float]]) -> None:
    client = Client()
    done = 0
    for kind, pause in moves:
        if kind == "step":
            done += 1
            await client.show(step(done), after=pause)
        elif kind == "phase":
            await client.show(event("phase", phase="loading", message="m", fraction=0.5), after=pause)
        else:
            await client.show(after=pause)
    values = [value for _, value, *_ in client.sent]
    assert all(later > earlier for earlier, later in itertools.pairwise(values))
    assert not values or values[-1] < done + 1
