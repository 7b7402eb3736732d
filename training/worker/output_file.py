"""Where the output of this process and of its libraries goes."""

from __future__ import annotations

import os
from pathlib import Path


def write_output_to(path: Path) -> None:
    """Let stdout and stderr go to this file."""
    # Without O_BINARY, Windows would write each end of a line anew, also those that Python has written.
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0)
    target = os.open(path, flags, 0o600)
    for descriptor in (1, 2):
        os.dup2(target, descriptor)
    os.close(target)
