"""Tensors of safetensors files, read to their places by several threads.

One thread brings about 4 GB/s from files in memory to a GPU, eight bring 25. So each tensor is split by its
rows into pieces, and each thread has a buffer for one of them: what that takes does not grow with the model.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BufferedReader
from math import prod
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self, cast

import torch
from torch import Tensor

from ...errors import ModelLoadError
from ...hardware.cpu import training_threads
from ...models.safetensors_files import StoredTensor

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

PIECE_BYTES = 16 << 20
"""Smaller ones would wait more for Python's lock than for memory while another thread compiles kernels."""
THREADS = 8
THREADS_ON_CPU = 2
"""One reads while the other copies, which all of torch's threads do together."""

DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
}  # fmt: skip


class RowReader:
    """Reads tensors in the order in which they are asked for; as a context, until all are at their places.

    The first error in that order is raised, by whichever method notices it or at the end of the context.

    Args:
        device: of the decoder; a place may also be in host memory.
        threads: that read; None: as many as help.
        piece_bytes: most bytes that a thread reads at once, a multiple of 8.
    """

    def __init__(
        self, device: torch.device, *, threads: int | None = None, piece_bytes: int = PIECE_BYTES
    ) -> None:
        most = THREADS if device.type == "cuda" else THREADS_ON_CPU
        self._threads = threads or min(most, training_threads())
        self._piece_bytes = piece_bytes
        self._free = [_Staging(piece_bytes, device) for _ in range(self._threads)]
        self._device = self._free[0].device
        self._pool = ThreadPoolExecutor(self._threads, "read-rows")
        self._waiting: deque[Callable[[], object]] = deque()

    def read(self, stored: StoredTensor, place: Tensor, what: str) -> None:
        """Begin to read a tensor to its place, converted to the type there; bytes are taken as they are.

        Args:
            what: the tensor in an error.

        Raises:
            ModelLoadError: it does not fit its place, or its file ends too early.
        """
        dtype = _dtype_in_file(stored, place, what)
        ready = None
        if place.is_cuda:
            ready = torch.cuda.Event()
            ready.record(torch.cuda.current_stream(self._device))
        for start, part in pieces(place, stored.start, dtype.itemsize, self._piece_bytes):
            piece = _Piece(stored.path, start, part, dtype, ready, what)
            self._expect(self._pool.submit(self._read, piece).result)

    def then(self, act: Callable[[], object]) -> None:
        """Do this, in the thread that asks for tensors, once all of those so far are at their places."""
        self._expect(act)

    def wait(self) -> None:
        """Return when all tensors so far are at their places."""
        while self._waiting:
            self._finish_oldest()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.wait()  # after an error too: an earlier tensor's comes first
        finally:
            self._pool.shutdown(cancel_futures=True)
            for staging in self._free:
                staging.close()

    def _expect(self, end: Callable[[], object]) -> None:
        self._waiting.append(end)
        while len(self._waiting) > 2 * self._threads:
            self._finish_oldest()

    def _finish_oldest(self) -> None:
        try:
            self._waiting.popleft()()
        except BaseException:
            self._waiting.clear()
            raise

    def _read(self, piece: _Piece) -> None:
        staging = self._free.pop()
        try:
            staging.read(piece)
        finally:
            self._free.append(staging)


@dataclass(frozen=True)
class _Piece:
    """Rows of a tensor, from a byte of a file to their place."""

    path: Path
    start: int
    place: Tensor
    dtype: torch.dtype
    """In the file."""
    ready: torch.cuda.Event | None
    """What was queued on the GPU before: it may still use the place, or what this memory held before."""
    what: str

    @property
    def bytes(self) -> int:
        return self.place.numel() * self.dtype.itemsize


class _Staging:
    """What one thread reads through: its buffer, the file that it has open, and on a GPU its stream."""

    def __init__(self, size: int, device: torch.device) -> None:
        on_gpu = device.type == "cuda"
        self._buffer = torch.empty(size, dtype=torch.uint8, pin_memory=on_gpu)
        self._on_gpu = torch.empty(size, dtype=torch.uint8, device=device) if on_gpu else self._buffer
        self.device = self._on_gpu.device  # with a GPU's number
        self._stream = torch.cuda.Stream(self.device) if on_gpu else None
        self._file: BufferedReader | None = None
        self._path: Path | None = None

    def read(self, piece: _Piece) -> None:
        place = piece.place
        in_place = place.device.type == "cpu" and place.dtype == piece.dtype and place.is_contiguous()
        raw = place.view(-1).view(torch.uint8) if in_place else self._buffer[: piece.bytes]
        file = self._opened(piece.path)
        file.seek(piece.start)
        if file.readinto(cast("WriteableBuffer", raw.numpy())) != piece.bytes:
            raise ModelLoadError(f"{piece.what} ends too early.", hint="Download the model again.")
        if place.is_cuda:
            self._copy_to_gpu(raw, piece)
        elif not in_place:
            place.copy_(raw.view(piece.dtype).view(place.shape))

    def _copy_to_gpu(self, raw: Tensor, piece: _Piece) -> None:
        """By way of the GPU, which converts and spreads rows at no cost."""
        assert self._stream is not None and piece.ready is not None
        on_gpu = self._on_gpu[: piece.bytes]
        with torch.cuda.device(self.device), torch.cuda.stream(self._stream):
            self._stream.wait_event(piece.ready)
            on_gpu.copy_(raw, non_blocking=True)
            piece.place.copy_(on_gpu.view(piece.dtype).view(piece.place.shape))
            self._stream.synchronize()

    def _opened(self, path: Path) -> BufferedReader:
        if self._file is None or self._path != path:
            self.close()
            self._file, self._path = path.open("rb"), path
        return self._file

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def pieces(place: Tensor, start: int, item_bytes: int, most: int) -> Iterator[tuple[int, Tensor]]:
    """Parts of a tensor of at most so many bytes in its file, each with the byte there at which it starts."""
    row_bytes = item_bytes * prod(place.shape[1:])
    if row_bytes > most:
        for index, row in enumerate(place):
            yield from pieces(row, start + index * row_bytes, item_bytes, most)
        return
    step = most // row_bytes
    for first in range(0, place.shape[0], step):
        yield start + first * row_bytes, place[first : first + step]


def _dtype_in_file(stored: StoredTensor, place: Tensor, what: str) -> torch.dtype:
    """The type as which a tensor is read, if it fits its place."""
    size = stored.end - stored.start
    if place.dtype == torch.uint8:
        if size != place.numel():
            raise ModelLoadError(f"{what} has {size} bytes, not {place.numel()}.")
        return torch.uint8
    if not stored.is_float:
        raise ModelLoadError(f"{what} holds no floating-point numbers.", hint="Take an unquantised model.")
    if stored.shape != tuple(place.shape):
        raise ModelLoadError(f"{what} has shape {stored.shape}, not {tuple(place.shape)}.")
    return DTYPES[stored.dtype]
