"""Where the time of a training goes before its first step is done."""

from __future__ import annotations

import time

from ..events import Event, Phase, Step
from ..redact import scrub
from ..untrusted import one_line

FIRST_STEP = "the first step"
LEAST_S = 0.05
"""What is done sooner is not worth a line."""


class StartUp:
    """Sees the events of an attempt as they come, and measures what lies between them.

    Attributes:
        seconds: of what is done before the first step, by the messages of the phases, and of that step.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._doing, self._since = "starting", time.monotonic()
        self._over = False

    def see(self, event: Event) -> None:
        """Take note of an event; phases that only say how far they are continue what came before."""
        if self._over:
            return
        match event:
            case Phase(message=message, fraction=None | 0.0):
                self._end(self._doing)
                self._doing = one_line(scrub(message))
            case Step():
                self._end(FIRST_STEP)
                self._over = True
            case _:
                pass

    def _end(self, what: str) -> None:
        now = time.monotonic()
        spent, self._since = now - self._since, now
        if spent >= LEAST_S:
            self.seconds[what] = round(self.seconds.get(what, 0.0) + spent, 2)
