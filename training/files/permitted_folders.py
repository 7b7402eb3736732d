"""Folders of models and adapters: permitted before they are read, and looked at again afterwards.

Other libraries open most of their files by name, so a file may be exchanged for a link between the two looks.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from ..errors import InputError
from ..untrusted import shown_path
from .paths import PathPolicy, read_in


class FileState(NamedTuple):
    """A file behind a name. A rename and a write both change one of the times, also if they are undone."""

    real_path: str
    device: int
    inode: int
    size: int
    modified_ns: int
    changed_ns: int


class PermittedFolders:
    """The folders that one piece of work reads."""

    def __init__(self, policy: PathPolicy) -> None:
        self._policy = policy
        self._found: dict[Path, tuple[str, dict[Path, FileState]]] = {}

    def permit(self, folder: Path, argument: str) -> None:
        """To be called before anything in the folder is read.

        Raises:
            PathForbiddenError: it has a link to a file that may not be read.
        """
        self._policy.permit_links(folder, argument)
        self._found.setdefault(folder, (argument, _files_of(read_in(folder))))

    def require_unchanged(self) -> None:
        """To be called after reading, before anything that was read is shown or gets its name.

        Raises:
            PathForbiddenError: a file has become a link to one that may not be read.
            InputError: a file was exchanged, also if it was put back. New files do not count.
        """
        for folder, (argument, before) in self._found.items():
            self._policy.permit_links(folder, argument)
            for path, state in before.items():
                if _state(path) != state:
                    raise InputError(
                        f"{argument}: {shown_path(path)} was exchanged while it was read.",
                        hint="Ask again when the folder is no longer written.",
                    )


def _files_of(folders: Iterable[Path]) -> dict[Path, FileState]:
    """The files of some folders, links followed; not those of the folders in them."""
    paths = [path for folder in folders if folder.is_dir() for path in folder.iterdir()]
    return {path: state for path in paths if (state := _state(path))}


def _state(path: Path) -> FileState | None:
    if not path.is_file():
        return None
    try:
        found = path.stat()
    except OSError:  # it was removed meanwhile
        return None
    return FileState(
        os.path.realpath(path),
        found.st_dev,
        found.st_ino,
        found.st_size,
        found.st_mtime_ns,
        found.st_ctime_ns,
    )
