"""Which machine, which boot, which run."""

from __future__ import annotations

import hashlib
import re
import secrets
import socket
import uuid
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import psutil

RANDOM_ADDRESS = 1 << 40  # the multicast bit, by which uuid marks addresses that it made up
LINUX_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@cache
def host() -> str:
    """This machine, as other machines that share a home folder see it: its name and a part of its id.

    A name alone changes with the network, and a container's with every start; where there is an id, runs
    are known by that (`same_host`).
    """
    return f"{socket.gethostname()}~{_machine_id()[:12]}"


def same_host(other: str) -> bool:
    """Whether a run's host is this machine, under whatever name."""
    return other == host() or other.rpartition("~")[2] == host().rpartition("~")[2]


@cache
def machine() -> str:
    """A name for this machine's own files in a folder that several may share."""
    return host().rpartition("~")[2]


def _machine_id() -> str:
    for path in (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id")):
        if path.is_file() and (text := path.read_text().strip()):
            return text
    address = uuid.getnode()
    if address & RANDOM_ADDRESS:  # there is no network card: another number in each process
        return hashlib.sha256(socket.gethostname().encode()).hexdigest()
    return uuid.UUID(int=address).hex[::-1]


@cache
def boot_id() -> str:
    """The same for all processes since the machine was started, another one after a restart."""
    if LINUX_BOOT_ID.is_file():
        return LINUX_BOOT_ID.read_text().strip()
    # The clock may be corrected while the machine runs; ten minutes absorb that.
    return f"{host()}-{round(psutil.boot_time() / 600)}"


def now() -> str:
    """UTC time with milliseconds, e.g. `2026-11-22T09:07:12.345Z`."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def seconds_since(moment: str) -> float:
    """Seconds from `moment` (as `now` writes it) until now."""
    return (datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds()


def new_run_id(label: str) -> str:
    """An id that sorts by time and can be read: `20261122T090712.345Z-smollm2-135m-a7f3`."""
    stamp = now().replace("-", "").replace(":", "")
    word = re.sub(r"[^a-z0-9.]+", "-", Path(label).name.lower()).strip("-.")[:24].strip("-.") or "run"
    return f"{stamp}-{word}-{secrets.token_hex(2)}"
