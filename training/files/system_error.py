"""An error of the operating system as one of ours: with its code, the place, and what to do."""

from __future__ import annotations

import errno
from pathlib import Path

from ..errors import BackpropagateError, NotWritableError, StateError, TooManyFilesError
from ..untrusted import shown_path
from .atomic_json import disk_full, is_disk_full

NOT_WRITABLE = {errno.EACCES, errno.EPERM, errno.EROFS}
TOO_MANY = {errno.EMFILE, errno.ENFILE}


def system_error(error: OSError, place: Path) -> BackpropagateError:
    """The error to raise for `error`.

    Args:
        place: the folder or file that was used, if `error` names none.
    """
    if isinstance(error, BackpropagateError):
        return error
    path = Path(error.filename) if isinstance(error.filename, str) else place
    shown = shown_path(path)
    reason = error.strerror or type(error).__name__
    if is_disk_full(error):
        return disk_full(path, error)
    if error.errno in TOO_MANY:
        return TooManyFilesError(f"{shown} cannot be opened ({reason}).", cause=error)
    if error.errno in NOT_WRITABLE:
        return NotWritableError(f"{shown} cannot be used ({reason}).", cause=error)
    return StateError(f"{shown} cannot be used ({reason}).", hint="Repair or remove it.", cause=error)
