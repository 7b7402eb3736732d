"""Progress that comes often is thinned out; what begins, ends or changes is not."""

from __future__ import annotations

import pytest

from backpropagate.training import events
from backpropagate.training.events import Event, Phase, Warned, throttled


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time in seconds, as `throttled` reads it."""
    now = [100.0]
    monkeypatch.setattr(events, "monotonic", lambda: now[0])
    return now


def phase(message: str, fraction: float | None = None, phase: str = "writing") -> Phase:
    return Phase(phase=phase, message=message, fraction=fraction)


def test_two_messages_a_second_are_reported_and_always_the_first_and_the_last(clock: list[float]) -> None:
    seen: list[Event] = []
    report = throttled(seen.append)
    for eighth in range(9):
        clock[0] = 100 + eighth / 8
        report(phase(f"{eighth}", eighth / 8))
    assert [event.message for event in seen if isinstance(event, Phase)] == ["0", "4", "8"]


def test_a_new_phase_a_message_without_a_fraction_and_other_events_are_reported_at_once(
    clock: list[float],
) -> None:
    given = [
        phase("a", 0.1),
        phase("b", 0.1, "proving"),
        phase("c"),
        Warned(message="d"),
        Warned(message="d"),
    ]
    seen: list[Event] = []
    report = throttled(seen.append)
    for event in given:
        report(event)
    assert seen == given


def test_a_message_is_not_repeated(clock: list[float]) -> None:
    seen: list[Event] = []
    report = throttled(seen.append)
    for _ in range(3):
        report(phase("creating the model"))
        clock[0] += 10
    assert seen == [phase("creating the model")]
