"""Identifiers of the machine, of its boot and of runs."""

from __future__ import annotations

import hashlib
import re
import secrets
import socket
import time
import uuid
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import psutil

from ..untrusted import quoted

RANDOM_ADDRESS = 1 << 40  # the multicast bit, which uuid sets in random addresses
RUN_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._~+-]{0,199}")
LINUX_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@cache
def host() -> str:
    """This machine's name and a part of its id, for machines that share a home folder.

    The name can change with the network, and changes with every start of a container; so hosts are compared
    by id (`same_host`).
    """
    return f"{socket.gethostname()}~{_machine_id()[:12]}"


def same_host(other: str) -> bool:
    """Whether a run's host is this machine, under any name."""
    return other == host() or other.rpartition("~")[2] == host().rpartition("~")[2]


@cache
def machine() -> str:
    """A folder name for this machine's files, in a folder that several machines may share."""
    return host().rpartition("~")[2]


def _machine_id() -> str:
    for path in (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id")):
        if path.is_file() and (text := path.read_text("utf-8").strip()):
            return text
    address = uuid.getnode()
    if address & RANDOM_ADDRESS:  # no network card: the number differs between processes
        return hashlib.sha256(socket.gethostname().encode()).hexdigest()
    return uuid.UUID(int=address).hex[::-1]


@cache
def boot_id() -> str:
    """An id that is the same for all processes until the machine restarts."""
    if LINUX_BOOT_ID.is_file():
        return LINUX_BOOT_ID.read_text("ascii").strip()
    # Rounded to ten minutes, since the clock may be corrected while the machine runs.
    return f"{host()}-{round(psutil.boot_time() / 600)}"


def now() -> str:
    """UTC time with milliseconds, e.g. `2026-11-22T09:07:12.345Z`."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def require_moment(text: str) -> str:
    """`text`, if it is a time with a zone, as `now` writes it; ValueError otherwise."""
    if datetime.fromisoformat(text).tzinfo is None:
        raise ValueError(f"{quoted(text)} is a time without a zone")
    return text


def seconds_since(moment: str) -> float:
    """Seconds since `moment`, in the format of `now`; negative if the clock was set back since."""
    return (datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds()


def is_recent(moment: str, seconds: float) -> bool:
    """Whether `moment` is at most `seconds` from now, in either direction.

    A time further in the future is from before the clock was set back: it says nothing about the age.
    """
    return abs(seconds_since(moment)) < seconds


def file_is_recent(path: Path, seconds: float) -> bool:
    """Whether a file was changed at most `seconds` from now, as `is_recent`; False if it is gone."""
    try:
        return abs(time.time() - path.lstat().st_mtime) < seconds
    except FileNotFoundError:
        return False


def is_run_id(name: str) -> bool:
    """Whether a folder of this name can be a run: it can be shown, typed and encoded."""
    return RUN_ID.fullmatch(name) is not None


def new_run_id(label: str) -> str:
    """A readable id that sorts by time: `20261122T090712.345Z-smollm2-135m-a7f3`."""
    stamp = now().replace("-", "").replace(":", "")
    word = re.sub(r"[^a-z0-9.]+", "-", Path(label).name.lower()).strip("-.")[:24].strip("-.") or "run"
    return f"{stamp}-{word}-{secrets.token_hex(2)}"
