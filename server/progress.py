"""Converts a run's events to MCP progress: immediate, at most two per second, with heartbeats, increasing."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence

from ..tools.status import step_message
from ..training.events import PHASES, Done, Event, Failed, Phase, Step, Warned
from ..training.untrusted import one_line

SendProgress = Callable[[float, float | None, str], Awaitable[None]]

LEAST_GAP_S = 0.5
HEARTBEAT_S = 10.0
MESSAGE_LENGTH = 200  # characters; some clients show no more
END_RESERVE = 0.5  # of a step, for the phases after the last step


class ProgressStream:
    """The progress of one call.

    `progress` counts optimizer steps; before the first it is a fraction that depends on the phase. It
    increases with every message, also with heartbeats.
    """

    def __init__(self, send: SendProgress, clock: Callable[[], float] = time.monotonic) -> None:
        self._send = send
        self._clock = clock
        self._sent_at = -1e9
        self._value = 0.0  # last sent value
        self._floor = 0.0  # progress of the run
        self._beats = 0  # messages since the run's last progress
        self._total: float | None = None
        self._message = "queued"
        self._fresh = True  # there is an event that was not sent yet
        self._done = False

    async def show(self, events: Sequence[Event]) -> None:
        """Process new events, and send a message if one is due."""
        for event in events:
            self._take(event)
        waited = self._clock() - self._sent_at
        ending = self._done and self._fresh
        if ending or (not self._done and ((self._fresh and waited >= LEAST_GAP_S) or waited >= HEARTBEAT_S)):
            await self._send_now()

    def _take(self, event: Event) -> None:
        self._fresh = True
        match event:
            case Phase():
                self._message = event.message
                self._reach(_phase_fraction(event))
            case Step():
                done, total = event.overall
                self._total = float(total)
                self._message = step_message(event)
                self._reach(min(done, self._total - END_RESERVE))
            case Warned():
                self._message = f"warning: {event.message}"
            case Done() | Failed():
                self._message = event.status
                self._done = True
            case _:
                self._fresh = False

    def _reach(self, floor: float) -> None:
        if floor > max(self._floor, self._value):
            self._floor = floor
            self._beats = 0

    async def _send_now(self) -> None:
        self._value = self._next_value()
        self._sent_at = self._clock()
        self._fresh = False
        await self._send(self._value, self._total, one_line(self._message, MESSAGE_LENGTH))

    def _next_value(self) -> float:
        if self._done and self._total and self._message == "completed":
            return max(self._total, self._value + 1e-6)
        if self._floor > self._value:
            return self._floor
        # Heartbeats approach the next whole step without reaching it.
        ceiling = int(self._value) + 1.0
        self._beats += 1
        return ceiling - (ceiling - self._value) * (1 - 1 / (self._beats + 100))


def _phase_fraction(event: Phase) -> float:
    start, end = PHASES.get(event.phase, (0.0, 0.0))
    return start + (end - start) * (event.fraction or 0.0)
