"""Files that a browser sends: only datasets, of limited size, under a plain name in the output folder."""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import anyio.to_thread
from starlette.datastructures import UploadFile

from ..training.errors import DiskFullError, InputError
from ..training.files.private_folder import make_private
from ..training.files.windows_paths import is_device
from ..training.untrusted import quoted

SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".txt", ".md")
PACKED = ("", ".gz", ".zst")
NAME_LENGTH = 80
KEPT_TIMES = 20  # the folder may hold so many files of the largest size
PIECE = 2**20


async def keep_upload(file: UploadFile, folder: Path, most: int) -> str:
    """The name under which the file is kept; an existing file is never replaced.

    Args:
        most: bytes of a file.

    Raises:
        InputError: it is no dataset, empty, or too large.
        DiskFullError: there are many files already.
    """
    name = plain_name(file.filename or "")
    return await anyio.to_thread.run_sync(_keep, file.file, folder, name, most)


def plain_name(given: str) -> str:
    """The name of a sent file without folders and without anything but letters, digits, `-`, `_` and `.`.

    Raises:
        InputError: it does not end like a dataset.
    """
    last = PurePosixPath(given.replace("\\", "/")).name
    plain = re.sub(r"[^\w.-]", "_", last, flags=re.ASCII).lstrip(".")
    ending = next(
        (
            suffix + packed
            for suffix in SUFFIXES
            for packed in PACKED
            if plain.lower().endswith(suffix + packed)
        ),
        None,
    )
    if ending is None:
        raise InputError(f"{quoted(last)} is no dataset.", hint=f"Send a {', '.join(SUFFIXES)} file.")
    stem = plain[: -len(ending)][:NAME_LENGTH] or "dataset"
    return ("_" if is_device(stem) else "") + stem + ending


def _keep(file: BinaryIO, folder: Path, name: str, most: int) -> str:
    make_private(folder)
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    if not size:
        raise InputError("The file is empty.", hint="Send one with at least one row.")
    if size > most:
        raise InputError(
            f"The file has {size:,} bytes; the limit is {most:,}.",
            hint="Give its path instead, or raise BACKPROPAGATE_UI__UPLOAD_MIB.",
        )
    if sum(each.stat().st_size for each in folder.iterdir() if each.is_file()) + size > KEPT_TIMES * most:
        raise DiskFullError("The output folder is full.", hint="Remove files that are not needed any more.")
    path, target = _new_file(folder, name)
    with target:
        while piece := file.read(PIECE):
            target.write(piece)
    return path.name


def _new_file(folder: Path, name: str) -> tuple[Path, BinaryIO]:
    stem, _, rest = name.partition(".")
    for number in range(1, 1000):
        path = folder / (name if number == 1 else f"{stem}-{number}.{rest}")
        try:
            return path, path.open("xb")
        except FileExistsError:
            continue
    raise InputError(f"There are 999 files like {quoted(name)}.", hint="Give it another name.")
