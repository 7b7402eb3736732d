"""How many requests, and how many passwords, one address may try."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

ADDRESSES = 4096


class RateLimit:
    """A bucket of permits for each address, which fills again.

    Args:
        burst: permits of a full bucket.
        per_s: permits that come back each second.
    """

    def __init__(self, burst: float, per_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._burst, self._per_s, self._clock = burst, per_s, clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()  # address → permits, as of when

    def take(self, address: str) -> float:
        """Take a permit: 0, or the seconds after which there is one."""
        now = self._clock()
        left, since = self._left.pop(address, (self._burst, now))
        left = min(self._burst, left + (now - since) * self._per_s)
        permitted = left >= 1
        self._left[address] = (left - 1 if permitted else left, now)
        if len(self._left) > ADDRESSES:
            self._left.popitem(last=False)
        return 0 if permitted else (1 - left) / self._per_s
