"""The weights of a finished GGUF file, as Transformers names and lays them out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ..gguf.export import UnverifiedGguf
from ..gguf.reader import read_gguf_header
from ..gguf.writer import Block, blocks_of, map_in_order
from ..merged.merge import Floats
from .tensors import read_block


class WeightRows(NamedTuple):
    """Rows `start` to `stop` of a weight, (stop - start, columns); of a vector, the one row."""

    name: str
    start: int
    stop: int
    values: Floats


def file_weights(file: UnverifiedGguf, threads: int) -> Iterator[WeightRows]:
    """All weights, dequantised, a block of rows at a time."""
    starts = [tensor.start for tensor in read_gguf_header(file.path).tensors]

    def work(block: Block) -> Floats:
        values = read_block(file.path, starts[block.index], block)
        tensor = block.tensor
        if len(tensor.shape) == 1:
            return tensor.layout.undo(values.reshape(-1), tensor.shape[0]).reshape(1, -1)
        return tensor.layout.undo(values, tensor.rows)

    for block, values in map_in_order(work, blocks_of(file.planned, threads), threads):
        if block.tensor.source is not None:
            yield WeightRows(block.tensor.source, block.start, block.stop, values)
