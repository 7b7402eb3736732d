"""File locks of the operating system, which it releases when the process dies."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from types import TracebackType

import psutil
from filelock import FileLock, Timeout

from ..errors import LockHeldError, LockUnsupportedError
from ..files.private_folder import require_own
from ..files.system_error import system_error
from ..untrusted import quoted, shown_path

PATIENCE_S = 5.0  # a call of a server answers soon after this
FOREVER = -1.0
LEAST_PATIENCE_S = 1.0  # for other calls, which hold a lock for milliseconds
_end: ContextVar[float] = ContextVar("the end of the waits of a call", default=math.inf)
HOLDER = 1  # offset of the holder's pid: Windows locks the byte at 0


@contextmanager
def waits_end_within(seconds: float) -> Generator[None]:
    """Let what is called wait for locks no longer than this in all, in its threads too."""
    token = _end.set(time.monotonic() + max(seconds, LEAST_PATIENCE_S))
    try:
        yield
    finally:
        _end.reset(token)


class Lock:
    """An exclusive lock on a file; it ends with its process.

    Args:
        patience_s: how long `with` waits for another holder; `FOREVER`: until it is free.
    """

    def __init__(self, path: Path, patience_s: float = PATIENCE_S) -> None:
        self.path = path
        self._patience_s = patience_s
        # A soft lock would remain after a killed process, so there is no fallback to it.
        self._lock = FileLock(
            path, mode=0o600, fallback_to_soft=False, preserve_lock_file=True, thread_local=False
        )

    def try_acquire(self, patience_s: float = 0) -> bool:
        """Take the lock if it is free, or becomes free within `patience_s` seconds.

        Raises:
            LockUnsupportedError: the file system has no locks.
            StateError: the file cannot be a lock, or belongs to another user.
        """
        return self._acquire(patience_s)

    def __enter__(self) -> Lock:
        began = time.monotonic()
        if not self._acquire(self._patience_s):
            raise LockHeldError(
                f"{shown_path(self.path)} is locked by {_holder(self.path)} for more than "
                f"{time.monotonic() - began:.2g} s.",
                hint="Let that process continue, or end it; then try again.",
            )
        _note_holder(self.path)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def release(self) -> None:
        self._lock.release()

    def _acquire(self, timeout_s: float) -> bool:
        if timeout_s > 0:
            timeout_s = max(0.0, min(timeout_s, _end.get() - time.monotonic()))
        try:
            self._lock.acquire(timeout=timeout_s)
            require_own(self.path)
        except Timeout:
            return False
        except OSError as error:
            self._lock.release()
            raise system_error(error, self.path) from error
        except NotImplementedError as error:
            raise LockUnsupportedError(
                f"The file system of {shown_path(self.path.parent)} has no file locks.",
                hint="Set BACKPROPAGATE_HOME (or BACKPROPAGATE_RUNTIME_DIR) to a folder on a local disk.",
                cause=error,
            ) from error
        return True


def _note_holder(path: Path) -> None:
    """Write this process's pid into the lock, for the message of one that waits in vain."""
    with suppress(OSError), path.open("r+b") as file:
        file.seek(HOLDER)
        file.write(b"%10d" % os.getpid())


def _holder(path: Path) -> str:
    """The process that noted itself last, and whether it is stopped."""
    with suppress(OSError, ValueError, psutil.Error):
        with path.open("rb") as file:
            file.seek(HOLDER)
            process = psutil.Process(int(file.read(10)))
        return f"process {process.pid} ({quoted(process.name())}, {process.status()})"
    return "another process"


def is_free(path: Path) -> bool:
    """Whether no process holds the lock on `path`."""
    if not path.exists():
        return True
    lock = Lock(path)
    free = lock.try_acquire()
    if free:
        lock.release()
    return free
