"""All LoRA matrices of a model in one flat fp32 buffer, with their gradients in another.

One buffer means one optimizer kernel, one clip and one file, whatever the model and whichever the step.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import torch
from torch import Tensor

from ..config.specs import LoraGroup


@dataclass(frozen=True)
class LoraModule:
    """A linear module with a LoRA. `name` as in the base model, e.g. model.layers.0.self_attn.q_proj.

    Args:
        experts: linears that it is; each has a LoRA of its own, and so this one as many times the rank.
    """

    name: str
    in_features: int
    out_features: int
    experts: int = 1


def lora_scale(lora: LoraGroup) -> float:
    """The factor of the update in y = W·x + scale·B·A·x (Hu et al. 2021, arXiv:2106.09685).

    alpha / r, or alpha / √r with rank stabilisation (Kalajdzievski 2023, arXiv:2312.03732).
    """
    return lora.alpha / (math.sqrt(lora.r) if lora.rslora else lora.r)


InputGroup = tuple[LoraModule, ...]
"""Modules that read the same input; their A matrices lie one below the other."""


class LoraParameters:
    """A (r, in_features) and B (out_features, r) of each module, as views into `values` and `gradients`;
    r is the rank, times the module's experts."""

    def __init__(self, groups: Sequence[InputGroup], rank: int, device: torch.device) -> None:
        self.groups = tuple(groups)
        self.rank = rank
        count = sum(rank * m.experts * (m.in_features + m.out_features) for m in self.modules())
        self.values = torch.zeros(count, dtype=torch.float32, device=device)
        self.gradients = torch.zeros_like(self.values)
        self._places = dict(self._laid_out())

    def modules(self) -> Iterator[LoraModule]:
        for group in self.groups:
            yield from group

    def _laid_out(self) -> Iterator[tuple[str, tuple[int, tuple[int, int]]]]:
        offset = 0
        for group in self.groups:
            for m in group:
                yield f"{m.name}.lora_A", (offset, (self.rank * m.experts, m.in_features))
                offset += self.rank * m.experts * m.in_features
            for m in group:
                yield f"{m.name}.lora_B", (offset, (m.out_features, self.rank * m.experts))
                offset += m.out_features * self.rank * m.experts

    def matrices(self, buffer: Tensor) -> dict[str, Tensor]:
        """Every matrix as a view into `buffer` (values, gradients or an optimizer's moment), by name."""
        return {name: self._view(buffer, name) for name in self._places}

    def b(self, buffer: Tensor, module: LoraModule) -> Tensor:
        """One module's B, (out_features, rank)."""
        return self._view(buffer, f"{module.name}.lora_B")

    def _view(self, buffer: Tensor, name: str) -> Tensor:
        offset, shape = self._places[name]
        return buffer[offset : offset + math.prod(shape)].view(shape)

    def stacked_a(self, buffer: Tensor, group: InputGroup) -> Tensor:
        """The A matrices of a group as one view, (rank · modules, in_features)."""
        offset, (_, in_features) = self._places[f"{group[0].name}.lora_A"]
        rows = self.rank * sum(m.experts for m in group)
        return buffer[offset : offset + rows * in_features].view(rows, in_features)

    def untaught(self) -> list[str]:
        """The modules whose B is 0, as in the beginning."""
        return [module.name for module in self.modules() if not self.b(self.values, module).any()]

    def initialise(self, seed: int) -> None:
        """A uniform in ±1/√in_features and B zero, as PEFT does; the same for every engine and device."""
        self.values.zero_()
        for name, matrix in self.matrices(self.values).items():
            if name.endswith("lora_A"):
                generator = torch.Generator().manual_seed(seed_of(seed, name))
                bound = 1 / math.sqrt(matrix.shape[1])
                matrix.copy_(torch.empty(matrix.shape).uniform_(-bound, bound, generator=generator))


def seed_of(*parts: object) -> int:
    """A 63-bit seed that depends on all of `parts` and on nothing else."""
    digest = blake2b(" ".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
