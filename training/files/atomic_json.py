"""Files that are complete or absent, also after a crash or on a full disk."""

from __future__ import annotations

import errno
import json
import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from ..errors import DiskFullError
from ..next_step import then
from ..untrusted import shown_path
from .regular_file import read_regular

Value = TypeVar("Value")

JSON_BYTES = 64 * 2**20  # the largest weights index of a public model has about 10 MB
NO_SPACE = {errno.ENOSPC, errno.EDQUOT}
WINDOWS_NO_SPACE = {39, 112}  # ERROR_HANDLE_DISK_FULL, ERROR_DISK_FULL


def is_disk_full(error: BaseException) -> bool:
    return isinstance(error, OSError) and (
        error.errno in NO_SPACE or getattr(error, "winerror", None) in WINDOWS_NO_SPACE
    )


def disk_full(path: Path, cause: OSError) -> DiskFullError:
    return DiskFullError(
        f"No space left on the disk for {shown_path(path)}.",
        hint="Free some space, for example by removing old runs, then try again.",
        next=then("free_disk"),
        cause=cause,
    )


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Replace `path` by `data` as JSON, durably: written aside, fsynced, renamed.

    Raises:
        DiskFullError: there is no space; the old file is untouched and nothing half-written stays.
    """
    # Lone surrogates, from file names that are not UTF-8, become the escapes that JSON has for them.
    content = json.dumps(data, ensure_ascii=False, indent=1).encode("utf-8", "backslashreplace")
    write_bytes(path, content + b"\n")


def write_bytes(path: Path, content: bytes, mode: int = 0o666) -> None:
    """`write_json` for other contents; `mode` is the file's, less the process's umask."""
    part = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.part")
    try:
        with open(part, "wb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        patiently(lambda: part.replace(path))
        sync_folder(path.parent)
    except OSError as error:
        part.unlink(missing_ok=True)
        if is_disk_full(error):
            raise disk_full(path, error) from error
        raise


def read_json(path: Path, *, follow_links: bool = True) -> dict[str, Any]:
    """The JSON object in `path`, whatever is there.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not a regular file of at most `JSON_BYTES`, or not a JSON object in UTF-8.
    """
    raw = patiently(lambda: read_regular(path, JSON_BYTES, follow_links=follow_links))
    try:
        data: object = json.loads(raw.decode("utf-8"))
    except RecursionError as error:
        raise ValueError(f"{path} is nested too deeply.") from error
    if not isinstance(data, dict):
        raise ValueError(f"{path} does not contain a JSON object.")
    return data  # pyright: ignore[reportUnknownVariableType]


def sync_folder(folder: Path) -> None:
    """Make a new name in `folder` survive a power cut. Windows has no such call and needs none."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file(path: Path) -> None:
    # Windows can only flush a file that is open for writing.
    with path.open("r+b") as file:
        os.fsync(file.fileno())


def patiently(action: Callable[[], Value]) -> Value:
    """Run `action`; on Windows, try again while another process has the file open."""
    if os.name != "nt":
        return action()
    for _ in range(40):
        try:
            return action()
        except PermissionError:
            time.sleep(0.025)
    return action()
