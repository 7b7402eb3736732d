"""The tensors of a GGUF file, with type and position, decided before anything is written."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as QuantType

from ...errors import GgufExportError
from ...models.known_config import Config
from ...next_step import then
from ...untrusted import quoted
from ..merged.merge import LM_HEAD, Floats, MergedWeights, is_tied
from .architectures import Architecture, row_layout
from .check_weights import IGNORED
from .expert_tensors import Experts, PackedExperts, expert_tensors, experts_of, is_of_experts
from .head_order import HeadOrder
from .rope import rope_of
from .row_layout import PLAIN_LAYOUT, RowLayout

ALIGNMENT = 32  # bytes between the beginnings of two tensors, GGUF's default


EXACT = ("_norm.weight", ".ffn_gate_inp.weight", ".ffn_gate_inp_shexp.weight", ".ssm_conv1d.weight")
"""Ends of the names of matrices that llama.cpp wants in f32."""


@dataclass(frozen=True)
class PlannedTensor:
    """One tensor of the file. `source` names a weight of the model; otherwise the values are those of
    `experts`, or `constant` holds them."""

    name: str
    shape: tuple[int, ...]
    kind: QuantType
    source: str | None = None
    constant: Floats | None = None
    layout: RowLayout | HeadOrder = PLAIN_LAYOUT
    experts: Experts | None = None

    @property
    def rows(self) -> int:
        """Vectors have one row."""
        return math.prod(self.shape[:-1])

    @property
    def columns(self) -> int:
        return self.shape[-1]

    @property
    def row_bytes(self) -> int:
        return (
            gguf.quant_shape_to_byte_shape((1, self.columns), self.kind)[1]
            if self.is_packed
            else (self.columns * gguf.GGML_QUANT_SIZES[self.kind][1])
        )

    @property
    def is_packed(self) -> bool:
        return self.kind not in (QuantType.F32, QuantType.F16)

    @property
    def nbytes(self) -> int:
        return self.rows * self.row_bytes

    def blocks(self, values_at_once: int) -> Iterator[tuple[int, int]]:
        """Ranges of rows that hold about so many values, and whole heads."""
        whole = self.layout.row_multiple(self.rows) if len(self.shape) > 1 else 1
        if self.experts is not None:
            whole = self.experts.row_multiple
        step = max(whole, values_at_once // self.columns // whole * whole)
        for start in range(0, self.rows, step):
            yield start, min(start + step, self.rows)

    def values(self, weights: MergedWeights, start: int, stop: int) -> Floats:
        """Rows as the file is to hold them, in fp32, (stop - start, columns)."""
        if self.experts is not None:
            return self.experts.values(weights, start, stop)
        if self.source is None:
            assert self.constant is not None
            return self.constant.reshape(self.rows, self.columns)[start:stop]
        if len(self.shape) == 1:
            whole = weights.rows(self.source, 0, self.shape[0])
            return self.layout.apply(whole, self.shape[0]).reshape(1, -1)
        values = weights.rows(self.source, start, stop).reshape(stop - start, self.columns)
        return self.layout.apply(values, self.rows)


def plan_tensors(
    weights: MergedWeights, config: Config, architecture: Architecture, kind: QuantType
) -> list[PlannedTensor]:
    """The file's tensors, matrices as `kind` where it can hold them.

    Raises:
        GgufExportError: llama.cpp's architecture has no tensor for a weight, or the adapter changes a weight
            that the file leaves out.
    """
    names = _gguf_names(architecture, config["num_hidden_layers"])
    planned = [
        PlannedTensor(name, values.shape, QuantType.F32, constant=values)
        for name, values in architecture.extra(config, rope_of(config)).items()
    ]
    planned += _plan_experts(weights, config, kind)
    tied = is_tied(config)
    for source, stored in weights.tensors.items():
        if is_of_experts(source):
            continue
        if source.endswith(IGNORED) or (tied and source == LM_HEAD):
            _refuse_update(weights, source)
            continue
        name = names(source)
        planned.append(
            PlannedTensor(
                name,
                _without_ones(stored.shape),
                plain_kind(name, stored.shape, kind),
                source=source,
                layout=row_layout(source, config, architecture),
            )
        )
    return planned


def _plan_experts(weights: MergedWeights, config: Config, kind: QuantType) -> Iterator[PlannedTensor]:
    for tensor in expert_tensors(weights, experts_of(config)):
        packed = isinstance(tensor.experts, PackedExperts)
        yield PlannedTensor(
            tensor.name,
            tensor.shape,
            QuantType.MXFP4 if packed else plain_kind(tensor.name, tensor.shape, kind),
            constant=tensor.bias,
            experts=tensor.experts,
        )


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Of a convolution over single channels, (channels, 1, kernel)."""
    return (shape[0], shape[2]) if len(shape) == 3 and shape[1] == 1 else shape


def plain_kind(name: str, shape: tuple[int, ...], kind: QuantType) -> QuantType:
    """The type of a tensor in a file of `kind`: norms and vectors stay exact, and rows that cannot be
    split into blocks are f16."""
    if len(shape) <= 1 or name.endswith(EXACT) or not name.endswith(".weight"):
        return QuantType.F32
    return kind if shape[-1] % gguf.GGML_QUANT_SIZES[kind][0] == 0 else QuantType.F16


def with_kinds(planned: list[PlannedTensor], kinds: dict[str, QuantType]) -> list[PlannedTensor]:
    """The same tensors in the types that llama.cpp chose.

    Raises:
        GgufExportError: one of them has none.
    """
    missing = [tensor.name for tensor in planned if tensor.name not in kinds]
    if missing:
        raise GgufExportError(
            f"llama.cpp reported no type for {missing[0]} ({len(missing)} tensors).",
            hint="Install the version of llama-cpp-python in constraints.txt, or use q8_0.",
            next=then("ask_again", quantization="q8_0"),
        )
    return [replace(tensor, kind=kinds[tensor.name]) for tensor in planned]


def write_header(
    path: Path, architecture: str, planned: list[PlannedTensor], metadata: Callable[[gguf.GGUFWriter], None]
) -> list[int]:
    """Write all that comes before the data; returns where each tensor's data begins, and where the last ends.

    Args:
        metadata: adds the keys to the writer.
    """
    writer = gguf.GGUFWriter(path, architecture, use_temp_file=False)
    metadata(writer)
    for tensor in planned:
        writer.add_tensor_info(
            tensor.name, tensor.shape, np.dtype(np.float32), tensor.nbytes, raw_dtype=tensor.kind
        )
    with closing(writer):
        writer.write_header_to_file(path)
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
    position = _padded(path.stat().st_size)
    starts: list[int] = []
    for tensor in planned:
        starts.append(position)
        position = _padded(position + tensor.nbytes)
    return [*starts, position]


def _padded(position: int) -> int:
    return -(-position // ALIGNMENT) * ALIGNMENT


def _gguf_names(architecture: Architecture, layers: int) -> Callable[[str], str]:
    kinds = {name: kind for kind, name in gguf.MODEL_ARCH_NAMES.items()}
    known = gguf.get_tensor_name_map(kinds[architecture.name], layers)

    def name_of(source: str) -> str:
        name = known.get_name(_with_suffix(source), try_suffixes=(".weight", ".bias", ".scale"))
        if name is None:
            raise GgufExportError(
                f"llama.cpp's {architecture.name} architecture has no tensor for {quoted(source)}.",
                hint="Export the merged model instead.",
                next=then("ask_again", format="merged"),
            )
        return name

    return name_of


def _with_suffix(source: str) -> str:
    """llama.cpp's names of parameters that are not those of a layer of their own."""
    if source.endswith((".router.scale", ".router.per_expert_scale")):  # Gemma 4's
        return source.replace("router.per_expert_scale", "experts.down_proj.scale").replace(
            "router.scale", "router.proj.scale"
        )
    if source.endswith((".sinks", ".layer_scalar")):
        return f"{source}.weight"
    if source.endswith(".dt_bias"):
        return f"{source.removesuffix('.dt_bias')}.dt_proj.bias"
    return source.replace(".e_score_correction_bias", ".e_score_correction.bias")


def _refuse_update(weights: MergedWeights, source: str) -> None:
    if source in weights.updates:
        raise GgufExportError(
            f"The adapter changes {source}, which is tied to the embedding and not stored separately.",
            hint="Train without lm_head among the target modules.",
        )
