"""Where compiled GPU kernels are kept from run to run: in the home, which no other user can write to.

    <cache>/kernels/<versions>/inductor    what torch's compiler has made, with Python code
                               triton      machine code for each kind of GPU

Both libraries name what they keep by a hash of all that it was made of. A folder for each set of versions
lets it be removed when it is not used any more. By default they keep it in the folder for temporary files,
which a restart empties.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ..files.private_folder import make_private

PLACES = {"TORCHINDUCTOR_CACHE_DIR": "inductor", "TRITON_CACHE_DIR": "triton"}
"""The variables that the libraries read, and our folder for each."""
MOST_BYTES = 2 << 30
"""Of all folders; the kernels of a model take a few MB."""
DAY_S, UNUSED_S = 24 * 3600, 30 * 24 * 3600
"""A folder's time is set at most once a day, and a day later it may go if there is too much."""


def use_kernel_cache(cache: Path) -> None:
    """Let this process and its children keep kernels below `cache`, unless the user has set another place."""
    if any(name in os.environ for name in PLACES):
        return
    folder = cache / "kernels" / _versions()
    try:
        if _unused_s(folder) > DAY_S:
            remove_unneeded(folder.parent)
            make_private(folder)
            os.utime(folder)
    except OSError:  # a full disk: the libraries keep them in their own place
        return
    os.environ.update({name: str(folder / part) for name, part in PLACES.items()})


def remove_unneeded(kernels: Path) -> None:
    """Remove folders that were not used for 30 days; if all take too much, those unused for a day as well."""
    folders = sorted((folder for folder in kernels.glob("*") if folder.is_dir()), key=_unused_s, reverse=True)
    taken = {folder: _bytes_of(folder) for folder in folders}
    for folder in folders:
        unused = _unused_s(folder)
        too_much = sum(taken.values()) > MOST_BYTES
        if unused > UNUSED_S or (too_much and unused > DAY_S):
            shutil.rmtree(folder, ignore_errors=True)
            del taken[folder]


def _versions() -> str:
    """Of what makes kernels and of what reads them: `torch-2.13.0-triton-3.7.1-py3.12`."""
    found = [f"{name}-{_version(name)}" for name in ("torch", "triton")]
    return "-".join([*found, f"py{sys.version_info.major}.{sys.version_info.minor}"])


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:  # Triton has another name in some builds of torch
        return "none"


def _unused_s(folder: Path) -> float:
    """Seconds since it was used, to a day; infinite if it is not there."""
    return time.time() - folder.stat().st_mtime if folder.is_dir() else float("inf")


def _bytes_of(folder: Path) -> int:
    return sum(file.lstat().st_size for file in folder.rglob("*") if file.is_file())
