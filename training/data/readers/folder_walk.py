"""The files of a folder or a pattern, found by a walk that ends: each real folder once, few entries."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatch
from glob import has_magic
from pathlib import Path

from ...errors import DatasetError, DatasetNotFoundError, PathForbiddenError, TrainingAbortedError
from ...events import ShouldStop, never_stop
from ...untrusted import shown_path

Permit = Callable[[Path], object]
"""Raises PathForbiddenError if a file may not be read. Called with each file's real path, links resolved."""

ENTRIES = 80_000
"""Files and folders that a walk looks at; each costs a tenth of a millisecond before an answer."""
EVERY = 256
"""Entries between two calls of `should_stop`."""
ANY_DEPTH = "**"

Places = frozenset[int]
"""Parts of a pattern that the next name may match."""


def permit_all(path: Path) -> None:
    """For callers who may read every file."""


def real_path(path: Path) -> Path:
    """The path with every link followed.

    Raises:
        DatasetNotFoundError: it is a link to itself.
    """
    try:
        return path.resolve()
    except RuntimeError:
        raise DatasetNotFoundError(f"{shown_path(path)} is a symbolic link to itself.") from None


def stop_if_asked(should_stop: ShouldStop) -> None:
    """Raises TrainingAbortedError if `should_stop` returns True."""
    if should_stop():
        raise TrainingAbortedError("Stopped while the dataset's files were searched.")


class FolderWalk:
    """Looks for files below folders. Links to folders are followed, but no folder is looked into twice.

    A folder is looked into only if `permit` accepts its real path, so that no name in another one is told.

    Args:
        permit: raises PathForbiddenError for a folder that may not be read.
        should_stop: looked at every `EVERY` entries.
    """

    def __init__(self, permit: Permit, should_stop: ShouldStop = never_stop) -> None:
        self._permit, self._should_stop = permit, should_stop
        self._entered: set[tuple[int, int, Places]] = set()
        self._looked_at = 0
        self.unreadable: list[Path] = []
        """Folders that were left out: the operating system or `permit` refused them."""

    def count(self, place: Path) -> None:
        """To be called for each file or folder that is looked at.

        Raises:
            DatasetError: there are more than `ENTRIES`.
            TrainingAbortedError: `should_stop` returned True.
        """
        self._looked_at += 1
        if self._looked_at > ENTRIES:
            raise DatasetError(
                f"The search for the dataset's files ended in {shown_path(place)} after {ENTRIES:,} entries.",
                hint="Give a smaller folder, a narrower pattern, or fewer and larger files.",
            )
        if self._looked_at % EVERY == 0:
            stop_if_asked(self._should_stop)

    def files_in(self, folder: Path, *, hidden: bool = False) -> Iterator[Path]:
        """The files of a folder and of the folders in it.

        Args:
            hidden: also those whose name, or a folder's, begins with a dot.

        Raises:
            PathForbiddenError: the folder itself may not be read.
        """
        self._permit(real_path(folder))
        waiting = [folder]
        while waiting:
            for entry in self._entries(waiting.pop()):
                if entry.name.startswith(".") and not hidden:
                    continue
                if _is_folder(entry):
                    waiting.append(Path(entry.path))
                elif Path(entry.path).is_file():
                    yield Path(entry.path)

    def files_matching(self, pattern: Path) -> Iterator[Path]:
        """The files of a pattern, as the shell understands it; `**` is any number of folders.

        Raises:
            PathForbiddenError: `..` follows a wildcard, or the folder before the first one may not be read.
        """
        fixed, parts = _split(pattern)
        self._permit(real_path(fixed))
        waiting = [(fixed, _with_skipped({0}, parts))]
        while waiting:
            folder, at = waiting.pop()
            for path, is_folder in self._candidates(folder, at, parts):
                then = _after(path.name, at, parts)
                if not is_folder and len(parts) in then:
                    yield path
                elif is_folder and then - {len(parts)}:
                    waiting.append((path, then))

    def _candidates(self, folder: Path, at: Places, parts: Sequence[str]) -> Iterator[tuple[Path, bool]]:
        """What is in a folder, and whether it is a folder; without a wildcard, only what has the name."""
        names = [parts[place] for place in at if place < len(parts)]
        if any(has_magic(name) for name in names):
            yield from ((Path(entry.path), _is_folder(entry)) for entry in self._entries(folder, at))
            return
        self.count(folder)
        if self._is_new(folder, at):
            found = (folder / name for name in names if os.path.lexists(folder / name))
            yield from ((path, path.is_dir()) for path in found)

    def _entries(self, folder: Path, at: Places = frozenset()) -> Iterator[os.DirEntry[str]]:
        if not self._is_new(folder, at):
            return
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    self.count(folder)
                    yield entry
        except PermissionError:
            self.unreadable.append(folder)
        except (FileNotFoundError, NotADirectoryError):
            return  # it was removed meanwhile

    def _is_new(self, folder: Path, at: Places) -> bool:
        """Whether the folder is looked into for the first time, for these places in the pattern."""
        real = real_path(folder)
        try:
            self._permit(real)
            found = real.stat()
        except PathForbiddenError:
            self.unreadable.append(folder)
            return False
        except OSError:
            return False
        known = (found.st_dev, found.st_ino, at) in self._entered
        self._entered.add((found.st_dev, found.st_ino, at))
        return not known


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _split(pattern: Path) -> tuple[Path, tuple[str, ...]]:
    """The folder before the first wildcard, and the parts from there on."""
    first = next(index for index, part in enumerate(pattern.parts) if has_magic(part))
    rest = pattern.parts[first:]
    if ".." in rest:
        raise PathForbiddenError(
            f"{shown_path(pattern)} has .. after a wildcard.", hint="Give the pattern without .. in it."
        )
    return Path(*pattern.parts[:first]), rest


def _after(name: str, at: Places, parts: Sequence[str]) -> Places:
    """The places in the pattern after a file or folder of this name; `len(parts)` is its end."""
    hidden = name.startswith(".")
    reached: set[int] = set()
    for place in at - {len(parts)}:
        part = parts[place]
        if hidden and not part.startswith("."):
            continue
        if part == ANY_DEPTH:
            reached.add(place)
        elif fnmatch(name, part):
            reached.add(place + 1)
    return _with_skipped(reached, parts)


def _with_skipped(at: set[int], parts: Sequence[str]) -> Places:
    """The places, and those behind a `**`, which may stand for no folder."""
    found = set(at)
    for place in at:
        while place < len(parts) and parts[place] == ANY_DEPTH:
            place += 1
            found.add(place)
    return frozenset(found)
