"""Writing a GGUF in one pass: each block of rows is read, merged, rounded once, quantised and written.

No merged model and no f16 file is made on the way. Blocks are worked on by all cores (NumPy and llama.cpp
release the GIL) and written in order, so memory is a few blocks, whatever the model's size.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import gguf
import numpy as np
from gguf import GGMLQuantizationType as QuantType

from ...errors import GgufExportError
from ...next_step import then
from ..merged.merge import Floats, MergedWeights
from .expert_tensors import PackedExperts
from .tensor_plan import PlannedTensor

Result = TypeVar("Result")

MEMORY_BYTES = 256 << 20  # for all blocks that are worked on at once, temporaries included
COPIES = 8  # of a block's fp32 values, at the worst moment of quantising them
PURE = frozenset({QuantType.F32, QuantType.F16, QuantType.BF16, QuantType.Q8_0})
LARGEST = {QuantType.F32: 3.4028234e38, QuantType.BF16: 3.3895313e38}
LARGEST_F16 = 65504.0  # of all other types, too: their scales are f16

Quantize = Callable[[Floats, PlannedTensor], bytes]
"""Rows of a tensor as its type's bytes."""


class OnBlock(Protocol):
    """Called when a block is done; raises to stop the work."""

    def __call__(self, tensor: int, name: str, done_bytes: int) -> None: ...


@dataclass(frozen=True)
class Block:
    """Rows `start` to `stop` of the tensor with this index."""

    index: int
    tensor: PlannedTensor
    start: int
    stop: int

    @property
    def values_bytes(self) -> int:
        return (self.stop - self.start) * self.tensor.columns * 4


def blocks_of(planned: list[PlannedTensor], threads: int) -> Iterator[Block]:
    """All rows of all tensors, in blocks that `threads` threads can work on within the memory limit."""
    values = MEMORY_BYTES // (threads * COPIES * 4)
    for index, tensor in enumerate(planned):
        for start, stop in tensor.blocks(values):
            yield Block(index, tensor, start, stop)


def map_in_order(
    work: Callable[[Block], Result], blocks: Iterator[Block], threads: int
) -> Iterator[tuple[Block, Result]]:
    """Each block with what `work` made of it, in their order; at most `threads` + 1 are in flight."""
    waiting: deque[tuple[Block, Future[Result]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for block in blocks:
                waiting.append((block, pool.submit(work, block)))
                if len(waiting) > threads:
                    done, result = waiting.popleft()
                    yield done, result.result()
            while waiting:
                done, result = waiting.popleft()
                yield done, result.result()
        finally:
            for _, result in waiting:
                result.cancel()


def write_data(
    path: Path,
    planned: list[PlannedTensor],
    starts: list[int],
    weights: MergedWeights,
    quantize: Quantize,
    on_block: OnBlock,
    threads: int,
) -> None:
    """Add the tensors' data to a file that has its header, and sync it to the disk.

    Args:
        starts: see `write_header`.

    Raises:
        GgufExportError: a weight is not finite, or the file's type cannot hold it.
    """

    def work(block: Block) -> bytes:
        if isinstance(block.tensor.experts, PackedExperts):
            return block.tensor.experts.packed(block.start, block.stop).tobytes()
        values = block.tensor.values(weights, block.start, block.stop)
        _require_finite(values, block.tensor)
        return quantize(values, block.tensor)

    done = 0
    with path.open("r+b") as file:
        for block, data in map_in_order(work, blocks_of(planned, threads), threads):
            file.seek(starts[block.index] + block.start * block.tensor.row_bytes)
            file.write(data)
            done += block.values_bytes
            on_block(block.index, block.tensor.name, done)
        file.truncate(starts[-1])  # the last tensor's padding
        file.flush()
        os.fsync(file.fileno())


def quantize_with_numpy(values: Floats, tensor: PlannedTensor) -> bytes:
    """The types that need nothing compiled, with the rounding of llama.cpp's own converter."""
    packed: Any = gguf.quants.quantize(values, tensor.kind)
    return packed.tobytes()


def _require_finite(values: Floats, tensor: PlannedTensor) -> None:
    largest = float(np.max(np.abs(values), initial=0.0))
    if not np.isfinite(largest):
        raise GgufExportError(
            f"{tensor.source} contains values that are not finite.", hint="The training diverged."
        )
    if largest > LARGEST.get(tensor.kind, LARGEST_F16):
        wider = "f32" if tensor.kind is QuantType.BF16 else "bf16"
        raise GgufExportError(
            f"{tensor.source} contains {largest:g}, which {tensor.kind.name.lower()} cannot represent.",
            hint=f"Export as {wider}.",
            next=then("ask_again", quantization=wider),
        )
