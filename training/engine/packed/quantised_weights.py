"""Weights that are quantised while they are loaded, each as soon as all of its tensors are there.

The experts of a layer are put together for that, and in 8 bits the linears that share an input.
"""

from __future__ import annotations

from collections.abc import Callable, Set

import torch
from torch import Tensor

from .decoder import PackedDecoder
from .expanded_linear import ExpandedExpertLinear, ExpandedLoraLinear
from .expert_places import expert_places
from .fp8 import Fp8Weight
from .fp8_linear import fp8_linears
from .nf4 import Nf4Weight

Split = Callable[[Tensor], dict[str, Tensor]]
"""The parts of a matrix, by the names of the tensors that they are in a checkpoint."""


class Quantised:
    """A weight that is put together of one or more tensors, and then quantised."""

    def __init__(
        self, weight: Nf4Weight | Fp8Weight, size: tuple[int, ...], decoder: PackedDecoder, split: Split
    ) -> None:
        self._weight, self._split = weight, split
        self._size, self._dtype, self._device = size, decoder.dtype, decoder.device
        self._missing = set(split(torch.empty(size, device="meta")))
        self._whole: Tensor | None = None

    @property
    def names(self) -> Set[str]:
        return self._missing

    @property
    def begun(self) -> bool:
        """Whether it is being put together."""
        return self._whole is not None

    def place(self, name: str) -> Tensor:
        """Where a tensor belongs."""
        if self._whole is None:
            self._whole = torch.empty(self._size, dtype=self._dtype, device=self._device)
        return self._split(self._whole)[name]

    def has(self, name: str) -> None:
        """A tensor is at its place; after the last one the weight is quantised."""
        self._missing.discard(name)
        if not self._missing and self._whole is not None:
            self._weight.take(self._whole)
            self._whole = None


def nf4_weights(decoder: PackedDecoder) -> dict[str, Nf4Weight]:
    """The weights that are kept in 4 bits, by the name of their module."""
    found: dict[str, Nf4Weight] = {}
    for layer in decoder.layers:
        for linear in layer.linears():
            if isinstance(linear, ExpandedLoraLinear):
                kept = {module.name: linear.stored(module) for module in linear.modules}
                found |= {name: weight for name, weight in kept.items() if isinstance(weight, Nf4Weight)}
        for each in layer.experts():
            if isinstance(each, ExpandedExpertLinear) and isinstance(each.stored, Nf4Weight):
                found[each.name] = each.stored
    return found


def to_quantise(decoder: PackedDecoder, weights: dict[str, Nf4Weight]) -> dict[str, Quantised]:
    """All that is quantised while it is loaded, by the names of the tensors in a checkpoint.

    Args:
        weights: those of `nf4_weights` that the checkpoint does not hold in 4 bits.
    """
    found: dict[str, Quantised] = {}
    experts = {each.name: each for layer in decoder.layers for each in layer.experts()}

    def split_of(name: str) -> Split:
        if name in experts:
            return lambda whole: expert_places(experts[name], whole)
        return lambda whole: {f"{name}.weight": whole}

    for name, weight in weights.items():
        size = experts[name].weight.shape if name in experts else (weight.shape.rows, weight.shape.columns)
        matrix = Quantised(weight, tuple(size), decoder, split_of(name))
        found |= dict.fromkeys(matrix.names, matrix)
    for linear in fp8_linears(decoder.layers):
        size = linear.outputs, linear.inputs
        matrix = Quantised(linear.weight, size, decoder, linear.places_in)
        found |= dict.fromkeys(matrix.names, matrix)
    return found
