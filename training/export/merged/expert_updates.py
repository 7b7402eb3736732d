"""A LoRA of all experts of a layer, as PEFT stores it, for the weights that a checkpoint has of them.

PEFT has one A and one B for the experts of a layer: A has r rows for each expert, B r columns for each,
ordered by rank first. Of the two fused parameters, gate_up gives twice the width, and down takes the width.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ...models.safetensors_files import StoredTensor

Floats = NDArray[np.float32]

MODULE = re.compile(r"(.+)\.experts(?:\.base_layer)*")
KNOWN_PARAMETERS = re.compile(r"(?:.+\.)?experts\.(?:gate_up|down)_proj|.+\.weight")
"""Of adapter_config.json's `target_parameters`."""
ONE_EXPERT = re.compile(r"(.+)\.experts\.(\d+)\.(gate_proj|up_proj|down_proj|w1|w2|w3)\.weight")
HALVES = {"gate_proj": 0, "w1": 0, "up_proj": 1, "w3": 1}
"""Which half of gate_up's outputs a matrix has; down has none of these names."""
BLOCKS = {"block_sparse_moe": "mlp"}
"""Transformers' names of the block of experts, by those in checkpoints."""


@dataclass(frozen=True)
class ExpertUpdate:
    """Updates of a weight (experts, inputs, outputs), or (experts, outputs, inputs) if not transposed."""

    up: Floats
    """scale · B of each expert, (experts, outputs, r)."""
    down: Floats
    """A of each expert, (experts, r, inputs)."""
    transposed: bool = True

    @property
    def shape(self) -> tuple[int, ...]:
        experts, outputs, inputs = self.up.shape[0], self.up.shape[1], self.down.shape[2]
        return (experts, inputs, outputs) if self.transposed else (experts, outputs, inputs)

    def rows(self, start: int, stop: int) -> Floats:
        """Of the experts `start` to `stop`, as the weight has them."""
        found = self.up[start:stop] @ self.down[start:stop]
        return found.swapaxes(1, 2) if self.transposed else found


def expert_matrices(up: Floats, down: Floats, rank: int) -> ExpertUpdate:
    """PEFT's matrices, expert by expert.

    Args:
        up: scale · B, (outputs, r · experts).
        down: A, (r · experts, inputs).
        rank: r.
    """
    experts = down.shape[0] // rank
    by_expert = up.reshape(up.shape[0], rank, experts).transpose(2, 0, 1)
    return ExpertUpdate(np.ascontiguousarray(by_expert), down.reshape(experts, rank, -1))


def stored_names(
    updates: list[tuple[str, ExpertUpdate]], tensors: Mapping[str, StoredTensor]
) -> Iterator[tuple[str, ExpertUpdate | tuple[Floats, Floats]]]:
    """The names of a checkpoint's weights that updates of experts change, with what is added to each.

    Args:
        updates: by the name of the block that the experts are in.
    """
    for block, given in updates:
        # Gemma 4's stand in the layer itself, and are not transposed as gpt-oss's are.
        update = replace(given, transposed=block.endswith(".mlp"))
        prefix = f"{block}.experts."
        for name, tensor in tensors.items():
            found = ONE_EXPERT.fullmatch(name)
            if found and _in_transformers(found[1]) == block:
                yield from _of_one(name, int(found[2]), found[3], update, tensor)
            elif name.startswith(prefix) and name.endswith("_proj") and tensor.shape == update.shape:
                yield name, update


def _of_one(
    name: str, expert: int, matrix: str, update: ExpertUpdate, tensor: StoredTensor
) -> Iterator[tuple[str, tuple[Floats, Floats]]]:
    outputs, inputs = tensor.shape
    half = HALVES.get(matrix)
    wanted = (outputs if half is None else 2 * outputs, inputs)
    if expert < len(update.up) and (update.up.shape[1], update.down.shape[2]) == wanted:
        first = outputs * (half or 0)
        yield name, (update.up[expert, first : first + outputs], update.down[expert])


def _in_transformers(block: str) -> str:
    parent, _, last = block.rpartition(".")
    return f"{parent}.{BLOCKS.get(last, last)}"
