"""Opens what a user gives as dataset (a file, files, a pattern, a folder, a Hub dataset) as a stream of rows.

Only the standard library is imported here. The libraries for Parquet, .zst and the Hub are imported when such
a source is read.

A new file type: its extension in `TABLES` or `TEXTS`, a case in `SourceFile.rows`, and a function that yields
`RawRow | BadRow` in a module of this folder.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from glob import has_magic
from pathlib import Path

from ...errors import DatasetError, DatasetFormatError, DatasetNotFoundError, InputError, PathForbiddenError
from ...events import ShouldStop, never_stop
from ...untrusted import quoted, short_name, shown_path
from .decoding import OnRead, file_hash, ignore_count, open_bytes, regular_file
from .folder_walk import EVERY, FolderWalk, Permit, permit_all, real_path, stop_if_asked
from .hub_names import is_on_hub
from .hub_rows import HubDataset, hub_dataset
from .json_rows import json_file, json_lines
from .rows import BadRow, RawRow
from .table_rows import csv_rows, parquet_rows
from .text_encoding import is_utf_8
from .text_rows import text_rows

TABLES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
TEXTS = (".txt", ".md")
COMPRESSIONS = (".gz", ".zst")
AGAIN = "Ask again when its files are no longer written."
OTHER_SPLITS = ("test", "valid", "validation", "val", "dev", "eval")


@dataclass(frozen=True)
class SourceFile:
    """One file of a source.

    Args:
        path: its real path.
        name: its name in findings: the shortest path that distinguishes it from the other files.
        encoding: of a text file that is neither UTF-8 nor UTF-16.
    """

    path: Path
    name: str
    separator: str | None = None
    encoding: str | None = None

    @property
    def type(self) -> str:
        """See `file_type`."""
        return file_type(self.path)

    def rows(self, on_read: OnRead = ignore_count) -> Iterator[RawRow | BadRow]:
        """The file's rows. `on_read` gets the number of bytes of each read."""
        match self.type:
            case ".jsonl" | ".ndjson":
                return json_lines(self.path, self.name, on_read, self._encoding())
            case ".json":
                return json_file(self.path, self.name, on_read, self._encoding())
            case ".csv" | ".tsv":
                return csv_rows(self.path, self.name, on_read, self._encoding())
            case ".parquet":
                return parquet_rows(self.path, self.name, on_read)
            case _:
                return text_rows(self.path, self.name, on_read, self.separator, self._encoding())

    def _encoding(self) -> str | None:
        """The given encoding, if the file is in another one than UTF-8: a folder may have both."""
        if self.encoding is None:
            return None
        with open_bytes(self.path) as stream:
            return None if is_utf_8(stream) else self.encoding

    def size(self) -> int:
        return regular_file(self.path).st_size

    def content_hash(self, should_stop: ShouldStop = never_stop) -> str:
        """SHA-256 of the file's bytes, before decompression."""
        return file_hash(self.path, should_stop)


@dataclass(frozen=True)
class Source:
    """Rows to train on. They can be read several times, each time from the start.

    Args:
        parts: files, or one Hub dataset. The held-out split takes its share of each part.
        notes: for the user, e.g. which files were not used.
        trained: the number of parts to train on; those after them are held out. None: all.
    """

    parts: tuple[SourceFile | HubDataset, ...]
    notes: tuple[str, ...] = ()
    trained: int | None = None

    def with_validation(self, other: Source) -> Source:
        """These rows, and those of another source to be held out."""
        return Source((*self.parts, *other.parts), (*self.notes, *other.notes), len(self.parts))

    @property
    def has_text_files(self) -> bool:
        """Whether a part of it has an encoding; texts of Parquet files and of the Hub are UTF-8."""
        return any(isinstance(part, SourceFile) and part.type != ".parquet" for part in self.parts)

    @property
    def has_documents(self) -> bool:
        """Whether a part of it is a text without rows."""
        return any(isinstance(part, SourceFile) and part.type in TEXTS for part in self.parts)

    def __iter__(self) -> Iterator[RawRow | BadRow]:
        for part in self.parts:
            yield from part.rows()

    def size(self) -> int:
        """Bytes of all files; 0 for a Hub dataset."""
        return sum(part.size() for part in self.parts)

    def stamp(self) -> list[tuple[int, int]]:
        """Size and modification time of each file, to detect changes."""
        found = [regular_file(part.path) for part in self.parts if isinstance(part, SourceFile)]
        return [(file.st_size, file.st_mtime_ns) for file in found]

    def require_unchanged(self, stamp: list[tuple[int, int]]) -> None:
        """Raises DatasetError if the files are no longer what they were at this `stamp`."""
        if self.stamp() != stamp:
            raise DatasetError("The dataset was changed while it was read.", hint=AGAIN)

    def content_hash(self, should_stop: ShouldStop = never_stop) -> str:
        """A hash of the content of all parts; independent of their paths.

        Raises:
            TrainingAbortedError: `should_stop` returned True.
        """
        parts = [part.content_hash(should_stop) for part in self.parts]
        return parts[0] if len(parts) == 1 else hashlib.sha256("\n".join(parts).encode()).hexdigest()


def open_source(
    source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    split: str | None = None,
    revision: str | None = None,
    separator: str | None = None,
    encoding: str | None = None,
    permit: Permit = permit_all,
    should_stop: ShouldStop = never_stop,
) -> Source:
    """Finds the files or the Hub dataset for `source`. No rows are read yet.

    Args:
        source: a file, a pattern such as `data/*.jsonl`, a folder, a Hub name such as `owner/name`
            (`owner/name:config` for one of its configurations), or a list of files and patterns.
        split: split of a Hub dataset (default "train", or the only one whose name begins so), or of a folder
            that is a copy of one.
        revision: branch, tag or commit of a Hub dataset.
        separator: the line between two documents of a .txt or .md file ("" is an empty line).
        encoding: of text files that are neither UTF-8 nor UTF-16.
        permit: raises PathForbiddenError for a path that may not be read.
        should_stop: looked at while files are searched.

    Raises:
        DatasetNotFoundError: the file or the dataset does not exist, or nothing matches the pattern.
        DatasetFormatError: a file has an unsupported type.
        DatasetError: a folder or a pattern has too many files.
        PathForbiddenError: `permit` or the operating system refuses a path.
        TrainingAbortedError: `should_stop` returned True.
    """
    walk = FolderWalk(permit, should_stop)
    if isinstance(source, (str, os.PathLike)):
        name = os.fspath(source)
        folder = Path(name).expanduser()
        if is_on_hub(name):
            return Source((hub_dataset(name, split, revision),))
        if split is not None and folder.is_dir():
            for path in walk.files_in(folder, hidden=True):
                permit(real_path(path))
            if walk.unreadable:
                raise _nothing(walk, "")
            return Source((hub_dataset(str(folder.resolve()), split, None),))
        found, notes = _find(name, walk)
    else:
        groups = [_find(os.fspath(item), walk) for item in source]
        found, notes = (
            [path for paths, _ in groups for path in paths],
            [note for _, more in groups for note in more],
        )
    files = _permitted(found, permit, should_stop)
    return Source(
        tuple(replace(file, separator=separator, encoding=encoding) for file in files),
        (*notes, *_unreadable(walk)),
    )


def _permitted(found: list[Path], permit: Permit, should_stop: ShouldStop) -> list[SourceFile]:
    base = Path(os.path.commonpath([path.absolute().parent for path in found]))
    files: list[SourceFile] = []
    folders = {folder: real_path(folder) for folder in {path.parent for path in found}}
    for number, path in enumerate(found):
        if number % EVERY == 0:
            stop_if_asked(should_stop)
        # Links are resolved before the check: a link may point out of the permitted folders.
        real = real_path(path) if path.is_symlink() else folders[path.parent] / path.name
        permit(real)
        regular_file(real)
        name = path.absolute().relative_to(base).as_posix()
        files.append(SourceFile(real, name.encode("utf-8", "backslashreplace").decode()))
        _known_type(files[-1])
    return files


def _known_type(file: SourceFile) -> None:
    if file.type in TABLES + TEXTS:
        return
    raise DatasetFormatError(
        f"{shown_path(file.path)} has an unsupported type: {quoted(file.type) if file.type else '(none)'}.",
        hint=f"Supported types: {', '.join(TABLES + TEXTS)}, also compressed as .gz or .zst.",
    )


def file_type(path: Path) -> str:
    """The file's extension in lower case, without `.gz` or `.zst`."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSIONS:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def _find(name: str, walk: FolderWalk) -> tuple[list[Path], list[str]]:
    path = Path(name).expanduser()
    try:
        if path.is_dir():
            return _in_folder(path, walk)
        if has_magic(name) and not path.exists():
            found = sorted(walk.files_matching(path))
            if not found:
                raise _nothing(walk, f"No file matches {shown_path(name)}.")
            return found, []
    except PathForbiddenError:
        raise
    except PermissionError:
        pass  # `regular_file` raises the error that names the path
    return [path], []


def _nothing(walk: FolderWalk, message: str, hint: str | None = None) -> InputError:
    """The error for a search without a result; folders that could not be read are named instead."""
    if walk.unreadable:
        return PathForbiddenError(f"{shown_path(walk.unreadable[0])} may not be read.")
    return DatasetNotFoundError(message, hint=hint)


def _unreadable(walk: FolderWalk) -> list[str]:
    names = ", ".join(shown_path(folder) for folder in walk.unreadable[:5])
    return [f"Not searched (they may not be read): {names}."] if names else []


def _in_folder(folder: Path, walk: FolderWalk) -> tuple[list[Path], list[str]]:
    """The tables in a folder, or its texts if there are no tables; of several splits, the train split."""
    files = sorted(walk.files_in(folder))
    found = [path for path in files if file_type(path) in TABLES and path.name != "dataset_infos.json"]
    found = found or [path for path in files if file_type(path) in TEXTS]
    if not found:
        types = f"Supported types: {', '.join(TABLES + TEXTS)}."
        raise _nothing(walk, f"The folder {shown_path(folder)} has no file of a supported type.", types)
    return _train_split(found)


def _train_split(found: list[Path]) -> tuple[list[Path], list[str]]:
    splits = {path: path.name.lower().split(".")[0].split("-")[0].split("_")[0] for path in found}
    others = [path for path, split in splits.items() if split in OTHER_SPLITS]
    if not others or "train" not in splits.values():
        return found, []
    names = ", ".join(short_name(path.name) for path in others[:5])
    used = [path for path in found if splits[path] not in OTHER_SPLITS]
    return used, [f"Not used (other splits): {names}."]
