"""Who may use a device: one run at a time, first come first served, across servers and homes.

A slot is an OS lock on a file named by the device, in a folder of the user's, not of a home's. Whoever
wants one stands in line with a ticket, a file named by the time and the run's id, which its worker keeps
locked. Nothing runs between the processes: the first in line looks for a free slot and takes it. Whoever is
not ready yet, because it still checks its data, keeps its place but is passed by those who are.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from platformdirs import user_state_path

from ..errors import QueueFullError
from .identity import machine
from .locks import Lock, is_free

MOST_WAITING = 20
NOT_READY, READY = 0.0, 1.0  # modification times of tickets that are held: they mark a file that is locked
FRESH_S = 20.0  # a ticket that nobody has locked yet counts for this long: its worker is being started


def default_runtime_folder() -> Path:
    """One folder per user and machine, the same for every home."""
    return user_state_path("backpropagate", appauthor=False) / "slots"


class DeviceRequest(NamedTuple):
    """What a run waits for.

    Args:
        queue: `cuda` or `cpu` for work on a device, `short` for what does not wait behind it.
        slots: of which it needs one: GPU UUIDs, `cpu`, or the numbered places of the short queue.
    """

    queue: str
    slots: list[str]

    @property
    def needs_device(self) -> bool:
        return self.queue != "short"


class DeviceQueue:
    """The runs that wait for a device of one kind, and these devices' slots.

    Args:
        folder: where the locks lie; see `default_runtime_folder`.
        queue: the kind of device, `cpu` or `cuda`: one queue for each.
    """

    def __init__(self, folder: Path, queue: str) -> None:
        self._folder = folder / machine()
        self._tickets = self._folder / f"{queue}-tickets"
        self._tickets.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._gate = Lock(self._folder / f"{queue}-gate.lock")
        self._held: list[Lock] = []
        self._place: Lock | None = None

    def join(self, run_id: str) -> None:
        """Stand in line.

        Raises:
            QueueFullError: twenty runs wait already.
        """
        with self._gate:
            waiting = self._waiting()
            if len(waiting) >= MOST_WAITING:
                raise QueueFullError(
                    f"{len(waiting)} runs wait already; at most {MOST_WAITING} may.",
                    hint="Cancel one that is not needed, or try again when one has started.",
                )
            self._ticket(run_id).touch()

    def hold_place(self, run_id: str) -> None:
        """Lock the ticket for as long as this process waits; joins if there is none."""
        with self._gate:
            ticket = self._ticket(run_id)
            ticket.touch()
            self._place = Lock(ticket)
            self._place.try_acquire()
            _mark(ticket, NOT_READY)  # from now on the lock alone says that somebody waits

    def leave(self, run_id: str) -> None:
        with self._gate:
            self._leave(run_id)

    def ahead(self, run_id: str) -> int:
        """How many stand in line before this run and are ready to go."""
        with self._gate:
            return self._ahead(run_id)

    def try_take(self, run_id: str, devices: Sequence[str]) -> str | None:
        """Take a free slot if it is this run's turn, and leave the line; whoever asks is ready.

        The place must be held; the slot is held until `release`.
        """
        with self._gate:
            _mark(self._ticket(run_id), READY)
            if self._ahead(run_id):
                return None
            device = self._take_free(devices)
            if device is not None:
                self._leave(run_id)
            return device

    def take_unless_busy(self, devices: Sequence[str]) -> str | None:
        """Take a free slot without standing in line."""
        with self._gate:
            return self._take_free(devices)

    def release(self) -> None:
        while self._held:
            self._held.pop().release()

    def _leave(self, run_id: str) -> None:
        if self._place is not None:  # Windows does not delete a file that is locked
            self._place.release()
            self._place = None
        self._ticket(run_id).unlink(missing_ok=True)

    def _take_free(self, devices: Sequence[str]) -> str | None:
        for device in devices:
            lock = Lock(self._folder / f"{device}.lock")
            if lock.try_acquire():
                self._held.append(lock)
                return device
        return None

    def _ahead(self, run_id: str) -> int:
        mine = self._ticket(run_id)
        return sum(t.name < mine.name and t.stat().st_mtime == READY for t in self._waiting(mine))

    def _waiting(self, mine: Path | None = None) -> list[Path]:
        """The tickets in line, first come first; those of dead processes are removed."""
        waiting: list[Path] = []
        for ticket in sorted(self._tickets.iterdir()):
            if ticket == mine or not is_free(ticket) or _age_s(ticket) < FRESH_S:
                waiting.append(ticket)
            else:
                ticket.unlink(missing_ok=True)
        return waiting

    def _ticket(self, run_id: str) -> Path:
        """The run's ticket, or the one it would get now."""
        found = next(self._tickets.glob(f"*~{run_id}"), None)
        return found or self._tickets / f"{time.time_ns():020d}~{run_id}"


def _mark(ticket: Path, state: float) -> None:
    os.utime(ticket, (state, state))


def _age_s(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return float("inf")
