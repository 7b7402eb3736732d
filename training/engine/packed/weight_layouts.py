"""In which form each linear's weight is kept: whole, or in 4 bits, as asked or as the checkpoint has it."""

from __future__ import annotations

from collections.abc import Mapping, Set

import torch

from ...errors import ModelLoadError
from .decoder_config import DecoderConfig, expert_linears, layer_linears
from .mxfp4 import BLOCK, Mxfp4Shape
from .nf4 import Nf4Shape
from .nf4_checkpoint import StoredNf4
from .stored_weights import LayerLayout, WeightShape, WholeShape


def layer_layouts(
    config: DecoderConfig,
    dtype: torch.dtype,
    *,
    in_4bit: bool,
    stored: Mapping[str, StoredNf4],
    mxfp4: Set[str] = frozenset(),
) -> list[LayerLayout]:
    """The layout of each layer.

    Args:
        in_4bit: quantise whole weights. A checkpoint that holds some of its weights in 4 bits has left out
            the others for a reason: they stay whole.
        stored: modules that the checkpoint holds in 4 bits.
        mxfp4: parameters of experts that it holds in MXFP4.

    Raises:
        ModelLoadError: one of them is of another shape than the config says.
    """
    quantise = in_4bit and not (stored or mxfp4)

    def shape(name: str, rows: int, columns: int) -> WeightShape:
        if name in mxfp4:
            if columns % BLOCK:
                raise ModelLoadError(f"{name} has rows of {columns} numbers, no multiple of {BLOCK}.")
            return Mxfp4Shape(rows, columns)
        if name in stored:
            return _checked(name, stored[name].shape, rows, columns)
        return Nf4Shape(rows, columns) if quantise else WholeShape(rows, columns, dtype)

    def layout(layer: int) -> LayerLayout:
        prefix = f"{config.place}.layers.{layer}"
        linears = [
            (name, shape(f"{prefix}.{name}", rows, linear.inputs))
            for linear in layer_linears(config, layer).all()
            for name, rows in linear.outputs.items()
        ]
        experts = [  # all of a layer as one matrix, one below the other
            (each.name, shape(f"{prefix}.{each.name}", each.experts * each.outputs, each.inputs))
            for each in expert_linears(config, layer)
        ]
        return LayerLayout((*linears, *experts))

    return [layout(layer) for layer in range(config.num_layers)]


def _checked(name: str, shape: Nf4Shape, rows: int, columns: int) -> Nf4Shape:
    if (shape.rows, shape.columns) != (rows, columns):
        raise ModelLoadError(f"{name} has shape {(shape.rows, shape.columns)}, not {(rows, columns)}.")
    return shape
