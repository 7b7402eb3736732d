"""Files that are whole or absent, also after a power cut."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from ..errors import DiskFullError
from ..runs.durable import is_disk_full, sync_folder


def write_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Make `folder` with `files` in it: written aside, flushed to the disk, then renamed into place.

    An older folder of the name is replaced.

    Raises:
        DiskFullError: there is no space left; nothing remains of the attempt.
    """
    aside = folder.with_name(f".writing-{folder.name}")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        aside.mkdir(parents=True)
        for name, content in files.items():
            with (aside / name).open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        sync_folder(aside)
        _replace(aside, folder)
    except OSError as error:
        shutil.rmtree(aside, ignore_errors=True)
        if not is_disk_full(error):
            raise
        size = sum(map(len, files.values())) / 1e6
        raise DiskFullError(
            f"{folder} needs {size:.1f} MB, and the disk is full.", hint="Free some space, then resume."
        ) from error


def _replace(aside: Path, folder: Path) -> None:
    old = folder.with_name(f".replaced-{folder.name}")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    aside.rename(folder)
    sync_folder(folder.parent)
    shutil.rmtree(old, ignore_errors=True)
