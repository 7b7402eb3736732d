"""File locks of the operating system, which it releases when the process dies."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

from filelock import FileLock, Timeout

from ..errors import LockUnsupportedError


class Lock:
    """An exclusive lock on a file. It has no timeout; it ends with its process."""

    def __init__(self, path: Path) -> None:
        self.path = path
        # A soft lock would remain after a killed process, so there is no fallback to it.
        self._lock = FileLock(path, fallback_to_soft=False, preserve_lock_file=True, thread_local=False)

    def try_acquire(self, patience_s: float = 0) -> bool:
        """Take the lock if it is free, or becomes free within `patience_s` seconds.

        Raises:
            LockUnsupportedError: the file system has no locks.
        """
        return self._acquire(patience_s)

    def __enter__(self) -> Lock:
        self._acquire(-1)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def release(self) -> None:
        self._lock.release()

    def _acquire(self, timeout_s: float) -> bool:
        try:
            self._lock.acquire(timeout=timeout_s)
        except Timeout:
            return False
        except NotImplementedError as error:
            raise LockUnsupportedError(
                f"The file system of {self.path.parent} has no file locks.",
                hint="Set BACKPROPAGATE_HOME (or BACKPROPAGATE_RUNTIME_DIR) to a folder on a local disk.",
                cause=error,
            ) from error
        return True


def is_free(path: Path) -> bool:
    """Whether no process holds the lock on `path`."""
    if not path.exists():
        return True
    lock = Lock(path)
    free = lock.try_acquire()
    if free:
        lock.release()
    return free
