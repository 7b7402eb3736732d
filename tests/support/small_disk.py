"""A disk that fills up: a file system of a few kilobytes in memory."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
from waiting import wait_until

needs_small_disk = pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0, reason="mounting a small disk takes root on Linux"
)


@contextmanager
def small_disk(folder: Path, size: str) -> Generator[Callable[[str], object]]:
    """Mount one of `size` (such as 256k) on a new folder; yields what gives it another size."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=True)
    try:
        yield lambda size: subprocess.run(["mount", "-o", f"remount,size={size}", str(folder)], check=True)
    finally:
        # A worker may still be leaving.
        unmount = ["umount", str(folder)]
        wait_until(lambda: subprocess.run(unmount, capture_output=True).returncode == 0, "the unmount")
