"""A process that ends with the one that started it: the pipe on its stdin closes, however that one ends."""

from __future__ import annotations

import os
import threading
from typing import BinaryIO, NoReturn

WITH_PARENT = "ends-with-parent"
"""The argument that says so."""


def open_stdin() -> BinaryIO:
    """The pipe without a buffer: Python aborts at its end when a thread waits in the buffer of sys.stdin."""
    return open(0, "rb", buffering=0, closefd=False)


def end_with_parent() -> None:
    threading.Thread(target=_wait_for_its_end, daemon=True, name="parent").start()


def _wait_for_its_end() -> NoReturn:
    while os.read(0, 4096):
        pass
    os._exit(1)
