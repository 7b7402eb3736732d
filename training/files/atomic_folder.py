"""Folders that are complete or absent: written aside, synced to the disk, renamed into place."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from ..errors import DiskFullError
from ..untrusted import shown_path
from .atomic_json import disk_full, is_disk_full, patiently, sync_file, sync_folder
from .new_name import place_folder


def part_of(target: Path, writer: str = "") -> Path:
    """Where a folder is written before it gets its name; a killed process leaves it behind.

    Args:
        writer: distinguishes concurrent writers, such as a run's id.
    """
    return target.with_name(f".{target.name}.{writer}.part" if writer else f".{target.name}.part")


def write_folder(target: Path, fill: Callable[[Path], object], writer: str = "") -> None:
    """Make the folder `target`, or replace it, by what `fill` writes into the folder that it is given.

    Args:
        writer: see `part_of`.

    Raises:
        DiskFullError: there is no space; `target` is what it was before.
    """
    _write(target, fill, part_of(target, writer), _replace)


def write_new_folder(target: Path, fill: Callable[[Path], object], writer: str) -> None:
    """Make the folder `target` in a place that is not ours; as `write_folder`, but nothing is replaced.

    Args:
        writer: a run's id; without it, a folder of the user's could have the name that is used meanwhile.

    Raises:
        OutputTakenError: there is something of that name now; see `place_folder`.
        DiskFullError: there is no space.
    """
    _write(target, fill, part_of(target, writer), place_folder)


def _write(
    target: Path, fill: Callable[[Path], object], part: Path, place: Callable[[Path, Path], None]
) -> None:
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir(parents=True)
        fill(part)
        for file in part.rglob("*"):
            if file.is_file():
                sync_file(file)
        sync_folder(part)
        place(part, target)
    except BaseException as error:
        shutil.rmtree(part, ignore_errors=True)
        if is_disk_full(error) or "No space left" in str(error):  # safetensors has an error of its own
            raise disk_full(target, OSError(str(error))) from error
        raise


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Make `folder`, or replace it, with these files in it; as `write_folder`."""

    def fill(part: Path) -> None:
        for name, content in files.items():
            (part / name).write_bytes(content)

    write_folder(folder, fill)


def _replace(part: Path, target: Path) -> None:
    old = target.with_name(f".{target.name}.replaced")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        patiently(lambda: target.rename(old))
    patiently(lambda: part.rename(target))
    sync_folder(target.parent)
    shutil.rmtree(old, ignore_errors=True)


def require_space(target: Path, needed: int) -> None:
    """Refuse what would not fit on the disk of `target`, before anything is written.

    Raises:
        DiskFullError: there are fewer than `needed` bytes.
    """
    there = next(folder for folder in target.parents if folder.exists())
    free = shutil.disk_usage(there).free
    if free < needed:
        raise DiskFullError(
            f"{shown_path(target)} needs {needed / 1e9:.2f} GB, and the disk has {free / 1e9:.2f} GB free.",
            hint="Free some space, or set output to a larger disk.",
        )
