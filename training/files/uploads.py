"""Files that clients of a server have uploaded, each in a folder of its own.

files/<whose>/<file id>/data.jsonl   the bytes as they came     file.json   name, purpose, time, size

`<whose>` is the principal's folder name, or `owner`. The name that a client gave a file is only a text in
file.json: no path is made of it.
"""

from __future__ import annotations

import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from pydantic import BaseModel, ConfigDict, ValidationError

from ..errors import DatasetNotFoundError, DiskFullError
from ..untrusted import one_line, quoted
from .atomic_folder import part_of, write_folder
from .atomic_json import patiently, read_json, write_json
from .principal_folder import principal_folder
from .private_folder import make_private
from .system_error import system_error

FILES = "files"
OWNER = "owner"
FILE_ID = re.compile(r"file-[0-9a-f]{24}", re.ASCII)
NAME_LENGTH = 255  # characters
GIB = 2**30
ABANDONED_S = 3600.0
MOST_FILES = 1000


class Upload(BaseModel):
    """An uploaded file, as file.json has it.

    Args:
        filename: as the client called it: untrusted.
        created_at: seconds since 1970.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)

    id: str
    filename: str
    purpose: str
    created_at: int
    bytes: int


class UploadStore:
    """The uploaded files of one principal.

    Args:
        principal: None is the owner of the home.
        most_gib: that the files of this principal may take.
        free_gib: that must stay free.
    """

    def __init__(self, home: Path, principal: str | None, most_gib: float, free_gib: float) -> None:
        self._home, self._most_gib, self._free_gib = home, most_gib, free_gib
        self.folder = uploads_folder(home, principal)

    def add(self, filename: str, purpose: str, content: BinaryIO, size: int) -> Upload:
        """Keep a file.

        Args:
            size: bytes of the content.

        Raises:
            DiskFullError: there is no room for it.
        """
        self.require_room(size)
        upload = Upload(
            id=f"file-{secrets.token_hex(12)}",
            filename=one_line(filename, NAME_LENGTH) or "upload.jsonl",
            purpose=purpose,
            created_at=int(time.time()),
            bytes=size,
        )
        write_folder(self.folder / upload.id, _content_of(upload, content))
        return upload

    def get(self, file_id: str) -> Upload:
        """The file with this id; raises DatasetNotFoundError if the principal has none."""
        if FILE_ID.fullmatch(file_id):
            with suppress(OSError, ValueError, ValidationError):
                return Upload.model_validate(read_json(self.folder / file_id / "file.json"))
        raise DatasetNotFoundError(
            f"There is no file {quoted(file_id)}.", hint="Upload it; a list of files has the ids."
        )

    def path(self, file_id: str) -> Path:
        """Where the content is; raises as `get`."""
        return self.folder / self.get(file_id).id / "data.jsonl"

    def all(self) -> list[Upload]:
        """Newest first."""
        return sorted(self._each(), key=lambda upload: (upload.created_at, upload.id), reverse=True)

    def delete(self, file_id: str) -> None:
        """Remove a file; raises as `get`, and a StateError if Windows keeps it for its reader."""
        folder = self.folder / self.get(file_id).id
        doomed = part_of(folder)  # a half-removed file must not look like a file
        try:
            patiently(lambda: folder.rename(doomed))
        except OSError as error:
            raise system_error(error, folder) from error
        shutil.rmtree(doomed, ignore_errors=True)

    def _each(self) -> Iterator[Upload]:
        for folder in self.folder.iterdir() if self.folder.is_dir() else ():
            with suppress(DatasetNotFoundError):
                yield self.get(folder.name)

    def require_room(self, size: int) -> None:
        """Raises DiskFullError where a file of so many bytes may not be kept."""
        for folder in (self.folder.parent, self.folder):
            make_private(folder)
        self._sweep()
        kept = [upload.bytes for upload in self._each()]
        if len(kept) >= MOST_FILES:
            raise DiskFullError(
                f"You have {len(kept):,} files, the most that may be.", hint="Delete some of them."
            )
        taken = sum(kept)
        if taken + size > self._most_gib * GIB:
            raise DiskFullError(
                f"Your files take {taken / GIB:.2f} GiB; {self._most_gib:g} GiB are permitted.",
                hint="Delete some of them.",
            )
        free = shutil.disk_usage(self._home).free
        if free - size < self._free_gib * GIB:
            raise DiskFullError(
                f"{free / GIB:.1f} GiB are free on the server's disk, and {self._free_gib:g} GiB have to "
                "be after this file.",
                hint="Ask the server's owner to free some.",
            )

    def _sweep(self) -> None:
        """Remove what a server left that was killed while it kept a file."""
        for part in self.folder.glob(".file-*.part"):
            with suppress(OSError):
                if part.stat().st_mtime < time.time() - ABANDONED_S:
                    shutil.rmtree(part, ignore_errors=True)


def uploads_folder(home: Path, principal: str | None) -> Path:
    """The folder of a principal's files."""
    return home / FILES / (OWNER if principal is None else principal_folder(home, principal).name)


def _content_of(upload: Upload, content: BinaryIO) -> Callable[[Path], None]:
    def fill(folder: Path) -> None:
        with (folder / "data.jsonl").open("wb") as file:
            shutil.copyfileobj(content, file, 2**20)
        write_json(folder / "file.json", upload.model_dump())

    return fill
