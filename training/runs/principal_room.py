"""What one principal of a server may take: unfinished runs, and disk."""

from __future__ import annotations

import shutil
from pathlib import Path

from ..config.settings import PrincipalSettings
from ..errors import DiskFullError, QueueFullError
from ..next_step import then

GIB = 2**30


def require_room(limits: PrincipalSettings, unfinished: int, taken: int) -> None:
    """Refuse another run of a principal that has taken what it may take.

    Args:
        unfinished: its runs that are queued or running.
        taken: bytes of the folders of all its runs.

    Raises:
        QueueFullError: it has too many unfinished runs.
        DiskFullError: its runs are too large.
    """
    if unfinished >= limits.runs:
        raise QueueFullError(
            f"{unfinished} of your runs are queued or running; at most {limits.runs} may be.",
            hint="Wait until one has ended, or cancel one.",
            next=then("list_runs"),
        )
    if taken >= limits.disk_gib * GIB:
        raise DiskFullError(
            f"Your runs take {taken / GIB:.1f} GiB; {limits.disk_gib:g} GiB are permitted.",
            hint="Remove some of them.",
            next=then("list_runs"),
        )


def require_free_disk(limits: PrincipalSettings, home: Path) -> None:
    """Refuse a run that would leave the server's other work without room.

    Raises:
        DiskFullError: less is free than the settings ask for.
    """
    free = shutil.disk_usage(home).free
    if free < limits.free_gib * GIB:
        raise DiskFullError(
            f"{free / GIB:.1f} GiB are free on the server's disk; {limits.free_gib:g} GiB have to be.",
            hint="Ask the server's owner to free some.",
            next=then("list_runs"),
        )
