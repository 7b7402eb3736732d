"""Which machine, which boot, which run."""

from __future__ import annotations

import re
import secrets
import socket
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import psutil

LINUX_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@cache
def host() -> str:
    """The name of this machine, as other machines that share a home folder see it."""
    return socket.gethostname()


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
