"""Which files a folder has, so that one that is exchanged while the folder is read is noticed."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple


class FileState(NamedTuple):
    """A file behind a name. A rename and a write both change one of the times, also if they are undone."""

    real_path: str
    device: int
    inode: int
    size: int
    modified_ns: int
    changed_ns: int


def folder_state(folders: Iterable[Path]) -> dict[Path, FileState]:
    """The files of some folders, links followed; not those of the folders in them."""
    return {
        Path(entry.path): state
        for folder in folders
        if folder.is_dir()
        for entry in os.scandir(folder)
        if (state := _state(Path(entry.path)))
    }


def exchanged(before: Mapping[Path, FileState]) -> Path | None:
    """The first file that is no longer what it was, or None; new files do not count."""
    return next((path for path, state in before.items() if _state(path) != state), None)


def _state(path: Path) -> FileState | None:
    try:
        found = path.stat()
    except OSError:  # a link to nothing
        return None
    if not path.is_file():
        return None
    return FileState(
        os.path.realpath(path),
        found.st_dev,
        found.st_ino,
        found.st_size,
        found.st_mtime_ns,
        found.st_ctime_ns,
    )
