"""Reads of a regular file that always end: no pipe is waited for, and nothing endless is read into memory."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

NONBLOCK = getattr(os, "O_NONBLOCK", 0)  # a pipe without a writer would block the open
NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
BINARY = getattr(os, "O_BINARY", 0)


def open_regular(path: Path, *, follow_links: bool = True) -> BinaryIO:
    """The file, open for reading.

    Raises:
        OSError: it cannot be opened.
        ValueError: it is not a regular file, or a link that is not to be followed.
    """
    if not follow_links and path.is_symlink():
        raise ValueError("it is a link")
    descriptor = os.open(path, os.O_RDONLY | NONBLOCK | BINARY | (0 if follow_links else NOFOLLOW))
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ValueError("it is not a regular file")
    return os.fdopen(descriptor, "rb")


def read_regular(path: Path, limit: int, *, follow_links: bool = True) -> bytes:
    """The bytes of a file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not a regular file, or longer than `limit` bytes.
    """
    with open_regular(path, follow_links=follow_links) as file:
        size = os.fstat(file.fileno()).st_size
        data = b"" if size > limit else file.read(limit + 1)  # it may grow meanwhile
    if max(size, len(data)) > limit:
        raise ValueError(f"it has {size:,} bytes; the limit is {limit:,}")
    return data
