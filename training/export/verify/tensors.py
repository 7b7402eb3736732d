"""Reads a GGUF file back, tensor by tensor, and compares it with base + adapter."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType as QuantType

from ...errors import GgufExportError
from ...events import Report, ShouldStop, never_stop, no_report
from ..gguf.export import UnverifiedGguf
from ..gguf.reader import HeaderTensor, read_gguf_header
from ..gguf.tensor_plan import PlannedTensor
from ..gguf.writer import Block, blocks_of, map_in_order
from ..merged.merge import Floats
from ..stage_progress import StageProgress

LARGEST_ERROR = {
    QuantType.F32: 0.0,
    QuantType.F16: 2.0**-11,
    QuantType.BF16: 2.0**-8,
    QuantType.Q8_0: 0.5 / 127 + 2.0**-10,
}
"""Of one value, relative to the largest one in its block (f32, f16, bf16: to itself)."""

F16_STEP = 2.0**-24  # between two f16 numbers close to zero
RMS_LIMIT = {8: 0.01, 6: 0.05, 5: 0.08, 4: 0.16, 3: 0.30, 2: 0.60, 1: 0.90}
"""Root of the mean squared error of a tensor relative to its values', by bits of its type."""


@dataclass(frozen=True)
class TensorComparison:
    """The result of comparing a whole file.

    Args:
        worst: name of the tensor with the largest error.
        worst_rms: that tensor's error, relative to its values.
    """

    tensors: int
    worst: str
    worst_rms: float

    def sentence(self, compared_with: str) -> str:
        return (
            f"{self.tensors} of {self.tensors} tensors read back and compared with {compared_with}; "
            f"largest relative error {self.worst_rms:.2g} ({self.worst})."
        )


def verify_tensors(
    file: UnverifiedGguf,
    threads: int,
    report: Report = no_report,
    should_stop: ShouldStop = never_stop,
) -> TensorComparison:
    """Compare every tensor of the file with base + adapter.

    Raises:
        GgufExportError: a tensor is missing, is in the wrong place, or differs
            by more than its type explains.
        TrainingAbortedError: `should_stop` said so.
    """
    path, planned, weights = file.path, file.planned, file.weights
    stored = read_gguf_header(path).tensors
    _require_same_form(planned, stored)
    total = sum(tensor.rows * tensor.columns * 4 for tensor in planned)  # as fp32
    progress = StageProgress("proving", "reading back", len(planned), total, report, should_stop)
    starts = [tensor.start for tensor in stored]

    def work(block: Block) -> tuple[float, float]:
        expected = block.tensor.values(weights, block.start, block.stop)
        difference = read_block(path, starts[block.index], block)
        difference -= expected
        _require_close(expected, difference, block.tensor)
        return _squares(difference), _squares(expected)

    errors: dict[str, float] = defaultdict(float)
    sizes: dict[str, float] = defaultdict(float)
    done = 0
    for block, (error, size) in map_in_order(work, blocks_of(planned, threads), threads):
        errors[block.tensor.name] += error
        sizes[block.tensor.name] += size
        done += block.values_bytes
        progress.step(block.index, block.tensor.name, done)
    relative = {name: math.sqrt(errors[name] / sizes[name]) if sizes[name] else 0.0 for name in errors}
    _require_small(planned, relative)
    worst = max(relative, key=relative.__getitem__)
    return TensorComparison(len(relative), worst, relative[worst])


def read_block(path: Path, start: int, block: Block) -> Floats:
    """The block's rows as the file holds them, dequantised, (rows, columns).

    Args:
        start: of the tensor, in bytes of the file.
    """
    tensor = block.tensor
    with path.open("rb") as file:
        file.seek(start + block.start * tensor.row_bytes)
        data = np.fromfile(file, np.uint8, (block.stop - block.start) * tensor.row_bytes)
    values: Any = gguf.quants.dequantize(data.reshape(-1, tensor.row_bytes), tensor.kind)
    return values.astype(np.float32, copy=False).reshape(-1, tensor.columns)


def _squares(values: Floats) -> float:
    return float(np.vdot(values, values))


def _require_same_form(planned: list[PlannedTensor], stored: list[HeaderTensor]) -> None:
    if [tensor.name for tensor in stored] != [tensor.name for tensor in planned]:
        raise GgufExportError("The file's tensors are not the planned ones.")
    for tensor, found in zip(planned, stored, strict=True):
        if (found.shape, found.kind) != (tensor.shape, tensor.kind):
            raise GgufExportError(
                f"{tensor.name} is {QuantType(found.kind).name} {list(found.shape)} in the file, "
                f"not {tensor.kind.name} {list(tensor.shape)}."
            )


def _require_close(expected: Floats, difference: Floats, tensor: PlannedTensor) -> None:
    """Check each value, for the types whose rounding is known."""
    limit = LARGEST_ERROR.get(tensor.kind)
    if limit is None:
        return
    size, error = np.abs(expected), np.abs(difference)
    if tensor.kind is QuantType.Q8_0:
        size, error = _largest_of_blocks(size), _largest_of_blocks(error)
    allowed = limit * size
    if tensor.kind in (QuantType.F16, QuantType.Q8_0):
        allowed += F16_STEP * (128 if tensor.kind is QuantType.Q8_0 else 1)
    if not np.all(error <= allowed):
        raise GgufExportError(f"{tensor.name} differs from base + adapter by more than rounding.")


def _largest_of_blocks(sizes: Floats) -> Floats:
    """By halves: NumPy's maximum over so short an axis takes three times as long."""
    width = gguf.GGML_QUANT_SIZES[QuantType.Q8_0][0]
    blocks = sizes.reshape(-1, width)
    while width > 1:
        width //= 2
        blocks = np.maximum(blocks[:, :width], blocks[:, width:])
    return blocks


def _require_small(planned: list[PlannedTensor], relative: dict[str, float]) -> None:
    for tensor in planned:
        block, size = gguf.GGML_QUANT_SIZES[tensor.kind]
        limit = RMS_LIMIT.get(min(size * 8 // block, 8), 0.01)
        if not relative[tensor.name] <= limit:
            raise GgufExportError(
                f"{tensor.name} as {tensor.kind.name} differs from base + adapter by "
                f"{relative[tensor.name]:.3g} of its size, more than {limit}.",
                hint="Use a quantization with more bits.",
            )
