"""What a container leaves this process of the machine: Linux control groups, versions 1 and 2."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

MOUNT = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")


class MemoryLimit(NamedTuple):
    """Bytes that this process's group may use, and uses already without what can be dropped."""

    limit: int
    used: int


def cpu_quota(mount: Path = MOUNT, own: Path = OWN) -> float | None:
    """How many CPUs' time this process may use, or None without a limit."""
    quotas = [quota for folder in _folders(mount, own, "cpu") if (quota := _quota(folder))]
    return min(quotas, default=None)


def memory_limit(mount: Path = MOUNT, own: Path = OWN) -> MemoryLimit | None:
    """The tightest memory limit of this process's groups, or None without one."""
    limits = [limit for folder in _folders(mount, own, "memory") if (limit := _memory(folder))]
    return min(limits, key=lambda limit: limit.limit - limit.used, default=None)


def _folders(mount: Path, own: Path, controller: str) -> Iterator[Path]:
    """This process's group and those around it, for one controller."""
    for line in _lines(own):
        _, names, path = line.split(":", 2)
        if names and controller not in names.split(","):
            continue
        top = mount / controller if names else mount
        for part in (Path(path), *Path(path).parents):
            yield top / part.relative_to("/")


def _quota(folder: Path) -> float | None:
    words = " ".join(_lines(folder / "cpu.max")).split()
    if not words:
        words = [*_lines(folder / "cpu.cfs_quota_us"), *_lines(folder / "cpu.cfs_period_us")]
    if len(words) != 2 or words[0] in ("max", "-1"):
        return None
    return int(words[0]) / int(words[1])


def _memory(folder: Path) -> MemoryLimit | None:
    limit = _number(folder / "memory.max") or _number(folder / "memory.limit_in_bytes")
    used = _number(folder / "memory.current") or _number(folder / "memory.usage_in_bytes")
    if limit is None or used is None:
        return None
    statistics = dict(line.split() for line in _lines(folder / "memory.stat"))
    droppable = int(statistics.get("total_inactive_file") or statistics.get("inactive_file", 0))
    return MemoryLimit(limit, max(0, used - droppable))


def _number(path: Path) -> int | None:
    lines = _lines(path)
    return int(lines[0]) if lines and lines[0].isdigit() else None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
