"""Tokenised examples on disk: written once, then read through memory maps.

    <cache>/<key>/input_ids.bin   int32    tokens of all examples, joined
                  trained.bin     uint8    1 where a token carries loss
                  ends.bin        int64    index after the last token of each example
                  side.bin        uint8    1 where an example is held out
                  hashes.bin      uint64   content hash of each example's row
                  order.bin       int64    numbers of the training examples, in training order
                  summary.json             everything else; written last

A folder is filled under another name and renamed when it is complete, so the folder of a key is complete or
missing. If two writers have the same key, the second to finish discards its folder. Later writers remove the
folders of killed writers and those that were not used for 30 days.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from ...errors import DiskFullError
from ...files.atomic_json import is_disk_full, patiently, read_json
from ...next_step import then
from .example import IGNORED, Example, MaskedTokens

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

COLUMNS = {
    "input_ids": "int32",
    "trained": "uint8",
    "ends": "int64",
    "side": "uint8",
    "hashes": "uint64",
}
UNFINISHED = ".unfinished-"
MOVED_AT_ONCE = BUFFER = 2**20
ABANDONED_S, UNUSED_S = 24 * 3600, 30 * 24 * 3600
"""Age in seconds at which an unfinished folder, and an unused finished one, is removed."""


class StoreWriter:
    """Writes the folder of one key. Use as a context. Without `finish`, the folder is removed."""

    def __init__(self, cache: Path, key: str) -> None:
        cache.mkdir(parents=True, exist_ok=True)
        _remove_unneeded(cache)
        self._final = cache / key
        self._folder = cache / f"{UNFINISHED}{key[:16]}-{os.getpid()}-{secrets.token_hex(4)}"
        self._folder.mkdir()
        self._files: dict[str, IO[bytes]] = {
            name: (self._folder / f"{name}.bin").open("wb", BUFFER) for name in COLUMNS
        }
        self._tokens = 0

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(self, *error: object) -> None:
        for file in self._files.values():
            file.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def add(self, examples: Sequence[MaskedTokens]) -> None:
        """Appends examples.

        Raises:
            DiskFullError: there is no space left.
        """
        import numpy as np

        ends = np.cumsum([0, *(len(one.input_ids) for one in examples)])
        trained = np.zeros(ends[-1], np.uint8)
        for one, first in zip(examples, ends.tolist(), strict=False):
            for start, end in one.trained:
                trained[first + start : first + end] = 1
        try:
            for one in examples:
                self._files["input_ids"].write(one.input_ids.data)
            self._files["trained"].write(trained.data)
            self._files["ends"].write((ends[1:] + self._tokens).data)
        except OSError as error:
            raise _disk_error(error, self._folder) from None
        self._tokens += int(ends[-1])

    def keep(self, used: NDArray[np.bool_], side: NDArray[np.bool_], hashes: NDArray[np.uint64]) -> None:
        """Removes the unused examples and writes the remaining columns for the others.

        Args:
            used, side, hashes: (examples,) for all examples that were added.

        Raises:
            DiskFullError: there is no space left.
        """
        import numpy as np

        try:
            if not used.all():
                self._drop(used)
            self._files["side"].write(side[used].astype(np.uint8).tobytes())
            self._files["hashes"].write(hashes[used].tobytes())
        except OSError as error:
            raise _disk_error(error, self._folder) from None

    def _drop(self, used: NDArray[np.bool_]) -> None:
        import numpy as np

        ends = np.array(self.column("ends"))
        lengths = np.diff(ends, prepend=0)
        runs = np.flatnonzero(np.diff(used, prepend=False, append=False)).reshape(
            -1, 2
        )  # (runs, 2) first, last + 1
        edges = np.append(0, ends)[runs].tolist()  # the tokens of each run
        for name in ("input_ids", "trained"):
            self._move_together(name, edges)
        self._files["ends"].seek(0)
        self._files["ends"].write(np.cumsum(lengths[used]).tobytes())
        self._files["ends"].truncate()

    def _move_together(self, name: str, edges: list[tuple[int, int]]) -> None:
        """Keeps only some ranges of a column and moves them together."""
        import numpy as np

        file, at = self._files[name], 0
        width = np.dtype(COLUMNS[name]).itemsize
        with (self._folder / f"{name}.bin").open("rb") as source:
            for start, end in edges:
                source.seek(start * width)
                file.seek(at * width)
                for first in range(start, end, MOVED_AT_ONCE):
                    file.write(source.read((min(end, first + MOVED_AT_ONCE) - first) * width))
                at += end - start
        file.truncate(at * width)

    def column(self, name: str) -> NDArray[Any]:
        """The current values of a column."""
        self._files[name].flush()
        return _column(self._folder, name)

    def finish(self, order: NDArray[np.int64], summary: dict[str, Any]) -> Path:
        """Publishes the folder under its key: flushed to disk, then renamed."""
        text = json.dumps(summary, ensure_ascii=False)
        try:
            (self._folder / "order.bin").write_bytes(order.tobytes())
            # A file name that is not UTF-8 becomes an escape, which JSON has as well.
            (self._folder / "summary.json").write_bytes(text.encode("utf-8", "backslashreplace"))
            for file in self._files.values():
                file.flush()
                os.fsync(file.fileno())
                file.close()
            patiently(lambda: os.rename(self._folder, self._final))
        except OSError as error:
            # Another writer of the same key was faster: its folder has the same content.
            if not stored(self._final.parent, self._final.name):
                raise _disk_error(error, self._folder) from None
        return self._final


def stored(cache: Path, key: str) -> Path | None:
    """The folder of a key, or None if it is missing. Marks it as used."""
    folder = cache / key
    if not (folder / "summary.json").is_file():
        return None
    with suppress(OSError):
        os.utime(folder)  # `_remove_unneeded` goes by this time
    return folder


def summary_of(folder: Path) -> dict[str, Any]:
    """The summary that `finish` wrote."""
    return read_json(folder / "summary.json")


class Lengths(NamedTuple):
    """Number of tokens of each example, and of those that carry loss: (examples,) each."""

    tokens: NDArray[np.int64]
    trained: NDArray[np.int64]


class Examples(Sequence[Example]):
    """Examples of a store, read from disk one by one.

    Args:
        folder: a finished folder.
        held_out: True: the held-out examples, in the order of the data. False: the training examples, in
            training order.
    """

    def __init__(self, folder: Path, *, held_out: bool) -> None:
        import numpy as np

        self._input_ids, self._trained = _column(folder, "input_ids"), _column(folder, "trained")
        self._ends = np.concatenate([[0], _column(folder, "ends")])
        side = _column(folder, "side")
        order = np.fromfile(folder / "order.bin", np.int64)
        self._order: NDArray[np.int64] = np.flatnonzero(side) if held_out else order
        self._hashes = _column(folder, "hashes")

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        input_ids, labels = self.arrays(index)
        return Example(input_ids.tolist(), labels.tolist())

    def arrays(self, index: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """`input_ids` and `labels` of an example: (tokens,) each."""
        import numpy as np

        number = self._order[index]
        start, end = self._ends[number], self._ends[number + 1]
        input_ids = np.asarray(self._input_ids[start:end])
        return input_ids, np.where(self._trained[start:end], input_ids, np.int32(IGNORED))

    def lengths(self) -> Lengths:
        """The lengths of all examples, for planning batches without reading the examples."""
        import numpy as np

        totals = np.concatenate([[0], np.cumsum(self._trained, dtype=np.int64)])
        trained = np.diff(totals[self._ends])
        return Lengths(np.diff(self._ends)[self._order], trained[self._order])

    def hashes(self) -> list[str]:
        """The content hash of each example's row. Later runs find the same rows by it."""
        return [f"{int(value):016x}" for value in self._hashes[self._order]]


def _column(folder: Path, name: str) -> NDArray[Any]:
    import numpy as np

    path = folder / f"{name}.bin"
    if path.stat().st_size == 0:
        return np.empty(0, COLUMNS[name])
    return np.memmap(path, COLUMNS[name], "r")


def _remove_unneeded(cache: Path) -> None:
    for folder in cache.iterdir():
        unfinished = folder.name.startswith(UNFINISHED)
        with suppress(OSError):  # its writer has just finished, or another process is reading it
            if time.time() - folder.stat().st_mtime > (ABANDONED_S if unfinished else UNUSED_S):
                doomed = folder if unfinished else folder.with_name(f"{UNFINISHED}{folder.name}")
                folder.rename(doomed)  # so that a partly removed folder does not look finished
                shutil.rmtree(doomed, ignore_errors=True)


def _disk_error(error: OSError, folder: Path) -> OSError:
    if not is_disk_full(error):
        return error
    return DiskFullError(f"No space is left for tokenised data in {folder.parent}.", next=then("free_disk"))
