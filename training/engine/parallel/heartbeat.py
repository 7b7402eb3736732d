"""Which of the processes that train together are alive, also those that neither end nor answer.

Each counts up in the store; a number that stays the same for many looks is of a process that is stopped, or
cannot be reached any more. Looks are counted and not seconds: a machine that slept has missed nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from datetime import timedelta

from torch.distributed import TCPStore  # pyright: ignore[reportPrivateImportUsage]

BEAT_S = 1.0
STEPPING, LOADING = 20, 120
"""Looks without a beat. While weights are read, a process may be in one call that lets no thread run: the
longest took 2 s where 15 processes shared two cores, and a slow disk has two minutes for a tensor."""
ANSWER = timedelta(seconds=10)


class Heartbeat:
    """The beats of this process, and its looks at those of others.

    Args:
        host, port: of the store.
        silent: called with a rank that has not been heard of, or with 0 once the store is gone.
    """

    def __init__(
        self, host: str, port: int, rank: int, others: Iterable[int], silent: Callable[[int], None]
    ) -> None:
        self.patience = LOADING
        self._rank, self._silent = rank, silent
        # A connection of its own: a call of another one may wait for long.
        self._store = TCPStore(host, port, is_master=False, timeout=ANSWER, wait_for_workers=False)
        self._seen: dict[int, tuple[bytes, int]] = {other: (b"", 0) for other in others}
        self._ended = threading.Event()
        self._store.set(beat_of(rank), "0")
        self._thread = threading.Thread(target=self._beat, daemon=True, name="heartbeat")
        self._thread.start()

    def end(self) -> None:
        self._ended.set()
        self._thread.join()

    def _beat(self) -> None:
        number = 0
        while not self._ended.wait(BEAT_S):
            number += 1
            try:
                self._store.set(beat_of(self._rank), str(number))
                silent = [other for other in self._seen if self._is_silent(other)]
            except RuntimeError:  # the store ended with its process
                silent = [0]
            if silent and not self._ended.is_set():
                self._silent(silent[0])
                return

    def _is_silent(self, other: int) -> bool:
        """Whether it has not been heard of for too long; one that has not begun is not expected."""
        if not self._store.check([beat_of(other)]):
            return False
        beat, (last, missed) = self._store.get(beat_of(other)), self._seen[other]
        self._seen[other] = (beat, 0 if beat != last else missed + 1)
        return self._seen[other][1] >= self.patience


def beat_of(rank: int) -> str:
    """Its name in the store."""
    return f"alive/{rank}"
