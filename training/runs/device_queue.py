"""The queue for devices: one run at a time on each, first in first out, across servers and home folders.

A slot is an OS lock on a file named after the device, in a folder per user and not per home folder. A run in
the queue has a ticket: a file named by time and run id, which its worker keeps locked. There is no queue
process: the worker of the first ticket polls until as many slots as it needs are free, and takes them. A run
that still checks its data keeps its queue place, but ready runs behind it are served first.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from platformdirs import user_state_path

from ..errors import QueueFullError
from ..files.private_folder import make_private
from ..files.system_error import system_error
from .identity import file_is_recent, machine
from .locks import PATIENCE_S, Lock, is_free

MOST_WAITING = 20
NOT_READY, READY = 0.0, 1.0  # modification times of locked tickets: the state of their run
KEPT = ".kept"
LOOK_S = 0.05
GIVING_WAY_S = 5.0  # a worker that keeps a model and does not answer leaves sooner
FRESH_S = 20.0  # a ticket that is not locked yet counts for this long, since its worker is starting


def default_runtime_folder() -> Path:
    """One folder per user and machine, the same for all home folders."""
    return user_state_path("backpropagate", appauthor=False) / "slots"


class DeviceRequest(NamedTuple):
    """The queue and the slots of a run.

    Args:
        queue: `cuda` or `cpu` for work on a device, `short` for work that does not wait for one.
        slots: the run needs one of these: GPU UUIDs, `cpu`, or the numbered slots of the short queue.
        processes: that share the work: each has a GPU, or all share the CPU.
    """

    queue: str
    slots: list[str]
    processes: int = 1

    @property
    def at_once(self) -> int:
        """Slots that the run needs at once."""
        return self.processes if self.queue == "cuda" else 1

    @property
    def needs_device(self) -> bool:
        return self.queue != "short"


class DeviceQueue:
    """The waiting runs of one queue, and the slots of its devices.

    Args:
        folder: folder of the locks; see `default_runtime_folder`.
        queue: see `DeviceRequest`.
        patience_s: how long each call waits for processes that change the queue at the same time.

    Raises:
        StateError: the folder belongs to another user, or cannot be written.
    """

    def __init__(self, folder: Path, queue: str, patience_s: float = PATIENCE_S) -> None:
        self._name = queue
        self._folder = folder / machine()
        self._tickets = self._folder / f"{queue}-tickets"
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            for private in (self._folder, self._tickets):
                make_private(private)
        except OSError as error:
            raise system_error(error, folder) from error
        self._gate = Lock(self._folder / f"{queue}-gate.lock", patience_s)
        self._held: list[Lock] = []
        self._place: Lock | None = None

    def join(self, run_id: str) -> None:
        """Add the run to the queue.

        Raises:
            QueueFullError: twenty runs are waiting.
        """
        with self._gate:
            waiting = self._waiting()
            if len(waiting) >= MOST_WAITING:
                raise QueueFullError(
                    f"The queue is full: {len(waiting)} runs are waiting (maximum {MOST_WAITING}).",
                    hint="Cancel one of them, or try again after one has started.",
                )
            self._ticket(run_id).touch()

    def hold_place(self, run_id: str) -> None:
        """Lock the ticket while this process waits; joins the queue if there is no ticket."""
        with self._gate:
            ticket = self._ticket(run_id)
            ticket.touch()
            self._place = Lock(ticket)
            self._place.try_acquire()
            _mark(ticket, NOT_READY)  # from now on the lock alone shows that a worker waits

    def leave(self, run_id: str) -> None:
        with self._gate:
            self._leave(run_id)

    def ahead(self, run_id: str) -> int:
        """Number of ready runs before this one in the queue."""
        with self._gate:
            return self._ahead(run_id)

    def try_take(self, run_id: str, devices: Sequence[str]) -> str | None:
        """As `try_take_several`, one slot."""
        taken = self.try_take_several(run_id, devices, 1)
        return taken[0] if taken else None

    def try_take_several(self, run_id: str, devices: Sequence[str], count: int) -> list[str]:
        """Take `count` free slots and leave the queue, if no ready run is ahead. The caller becomes ready.

        All of them or none, so that no two runs wait for what the other holds. A run that needs many is not
        overtaken by those that need few: while it is the first, the others wait behind it.
        Needs `hold_place`; the slots are held until `release`.
        """
        with self._gate:
            _mark(self._ticket(run_id), READY)
            if self._ahead(run_id):
                return []
            taken = self._take_free(devices, count)
            if taken:
                self._leave(run_id)
            return taken

    def take_unless_busy(self, devices: Sequence[str]) -> str | None:
        """Take a free slot without joining the queue."""
        taken = self.take_several_unless_busy(devices, 1)
        return taken[0] if taken else None

    def take_several_unless_busy(self, devices: Sequence[str], count: int) -> list[str]:
        """Take `count` free slots, or none, without joining the queue."""
        with self._gate:
            return self._take_free(devices, count)

    def take_from_keeper(self, run_id: str, devices: Sequence[str], count: int = 1) -> list[str]:
        """Take slots that workers with a kept model give up for this run; none if others hold them."""
        if not self._keepers():
            return []
        end = time.monotonic() + GIVING_WAY_S
        self.hold_place(run_id)
        try:
            while not (taken := self.try_take_several(run_id, devices, count)) and time.monotonic() < end:
                time.sleep(LOOK_S)
            return taken
        finally:
            self.leave(run_id)

    # --- Models that a worker keeps in memory between runs. ---
    def keep(self, key: str) -> Lock | None:
        """Announce that this process keeps a model; None if another process keeps the same one."""
        lock = Lock(self._folder / f"{self._name}-{key}{KEPT}")
        return lock if lock.try_acquire(LOOK_S) else None

    def end_keeping(self, lock: Lock) -> None:
        lock.release()
        with suppress(OSError):  # another process looks at it: Windows does not delete it then
            lock.path.unlink(missing_ok=True)

    def is_kept(self, key: str) -> bool:
        """Whether a process keeps this model."""
        return not is_free(self._folder / f"{self._name}-{key}{KEPT}")

    def _keepers(self) -> list[Path]:
        return [path for path in self._folder.glob(f"{self._name}-*{KEPT}") if not is_free(path)]

    def waiting(self) -> list[tuple[str, bool]]:
        """The waiting runs in queue order, each with whether it is ready to start."""
        if next(self._tickets.iterdir(), None) is None:
            return []
        with self._gate:
            return [(t.name.partition("~")[2], t.stat().st_mtime == READY) for t in self._waiting()]

    def keep_first(self) -> None:
        """Release all slots that are held but the first."""
        while len(self._held) > 1:
            self._held.pop().release()

    def release(self) -> None:
        while self._held:
            self._held.pop().release()

    def _leave(self, run_id: str) -> None:
        if self._place is not None:  # Windows does not delete a file that is locked
            self._place.release()
            self._place = None
        self._ticket(run_id).unlink(missing_ok=True)

    def _take_free(self, devices: Sequence[str], count: int) -> list[str]:
        taken: dict[str, Lock] = {}
        for device in devices:
            lock = Lock(self._folder / f"{device}.lock")
            if len(taken) < count and lock.try_acquire():
                taken[device] = lock
        if len(taken) < count:
            for lock in taken.values():
                lock.release()
            return []
        self._held.extend(taken.values())
        return list(taken)

    def _ahead(self, run_id: str) -> int:
        mine = self._ticket(run_id)
        return sum(t.name < mine.name and t.stat().st_mtime == READY for t in self._waiting(mine))

    def _waiting(self, mine: Path | None = None) -> list[Path]:
        """The tickets in queue order; those of dead processes are removed."""
        waiting: list[Path] = []
        for ticket in sorted(self._tickets.iterdir()):
            if ticket == mine or file_is_recent(ticket, FRESH_S) or not is_free(ticket):
                waiting.append(ticket)
            else:
                ticket.unlink(missing_ok=True)
        return waiting

    def _ticket(self, run_id: str) -> Path:
        """The run's ticket, or the path of a new one."""
        found = next(self._tickets.glob(f"*~{run_id}"), None)
        return found or self._tickets / f"{self._next_number():020d}~{run_id}"

    def _next_number(self) -> int:
        """The time, or more: the clock may have been set back since the last ticket."""
        numbers = [int(number) for t in self._tickets.iterdir() if (number := t.name[:20]).isdecimal()]
        return max([time.time_ns(), *(number + 1 for number in numbers)])


def _mark(ticket: Path, state: float) -> None:
    os.utime(ticket, (state, state))
