"""Reads of a regular file that always end: no pipe is waited for, and nothing endless is read into memory.

`open_permitted` is the door for files that somebody else may exchange: what was permitted is what is opened.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

NONBLOCK = getattr(os, "O_NONBLOCK", 0)  # a pipe without a writer would block the open
NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
BINARY = getattr(os, "O_BINARY", 0)
PATH_ONLY = getattr(os, "O_PATH", 0)  # Linux: a folder that may be passed through, but not listed
NO_LINK_ON_THE_WAY = getattr(os, "O_NOFOLLOW_ANY", 0)  # macOS
LINK_ERRORS = (errno.ELOOP, errno.ENOTDIR, errno.EMLINK)  # EMLINK: FreeBSD


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


def open_permitted(path: Path) -> int:
    """The descriptor of a file that was permitted by its real path, open for reading.

    Args:
        path: with every link resolved. If a part of it has become a link since then, it leads elsewhere.

    Raises:
        OSError: it cannot be opened.
        ValueError: it is not a regular file, or a part of its path is a link now.
    """
    try:
        descriptor = _open_without_links(path)
    except OSError as error:
        if error.errno in LINK_ERRORS and _leads_elsewhere(path):
            raise ValueError("a part of its path has become a link") from error
        raise
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError("it is not a regular file")
        # Windows renames neither a file that is open nor the folders above it, so this is what was opened.
        if not (PATH_ONLY or NO_LINK_ON_THE_WAY) and _leads_elsewhere(path):
            raise ValueError("a part of its path has become a link")
    except ValueError:
        os.close(descriptor)
        raise
    return descriptor


def _leads_elsewhere(path: Path) -> bool:
    return os.path.realpath(path) != str(path)


def _open_without_links(path: Path) -> int:
    flags = os.O_RDONLY | NONBLOCK | BINARY | NOFOLLOW
    if not PATH_ONLY:
        return os.open(path, flags | NO_LINK_ON_THE_WAY)
    folder = os.open(path.anchor, PATH_ONLY)
    try:
        for part in path.parts[1:-1]:
            inner = os.open(part, PATH_ONLY | os.O_DIRECTORY | NOFOLLOW, dir_fd=folder)
            os.close(folder)
            folder = inner
        return os.open(path.name, flags, dir_fd=folder)
    finally:
        os.close(folder)


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
