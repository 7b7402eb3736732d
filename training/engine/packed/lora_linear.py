"""Linear layers that share an input, with their LoRA fused into the frozen weight's own GEMM.

One buffer holds everything:

    [[W, B],       W (N, K)  the frozen weights, one below the other (q, k, v; or gate, up; or one alone)
     [A, 0]]       B (N, R)  scale · B of each LoRA, in its own rows and columns
                   A (R, K)  the A matrices, one below the other

so that [x, x·Aᵀ]·[W, B]ᵀ is the output with LoRA, and dy·[W, B] = [dy·W, dy·B] gives the gradients of x and
of x·Aᵀ at once. A wide layer (N > K) extends its input so; a tall one extends its output instead: x·[W; A]ᵀ
and [dy, dy·B]·[W; A]. Either way the small products are part of the big ones.

Dropout cannot be fused: y = W·x + scale·B·A·(mask ∘ x)/(1-p) gives each LoRA an input of its own. With it,
each module draws its mask three times (forward, and for both gradients) instead of storing it, and makes a
masked copy of its input and two small products of its own. That made a step of SmolLM2 on a CPU 31% longer.
At p = 0 nothing of this happens.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from ...planning.memory import ALIGNMENT
from ..lora_parameters import InputGroup, LoraModule, LoraParameters
from .extended_rows import extended_by
from .gpu_kernels import has_kernels

if TYPE_CHECKING:
    from .refresh_kernel import CopyTable


@dataclass(frozen=True)
class Masks:
    """The dropout masks of one linear in one micro-batch: the same seed draws the same ones again."""

    probability: float
    generator: torch.Generator
    seed: int

    def draw(self, like: Tensor, index: int) -> Tensor:
        """0, or 1/(1-p) with probability 1-p, so that a masked input keeps its expectation."""
        keep = 1 - self.probability
        self.generator.manual_seed(self.seed + index)
        mask = torch.empty(like.shape, dtype=like.dtype, device=like.device)
        return mask.bernoulli_(keep, generator=self.generator).div_(keep)


class MakeLinear(Protocol):
    """Makes the linear layers of a decoder."""

    def __call__(
        self,
        modules: Sequence[LoraModule],
        *,
        targeted: Sequence[bool],
        rank: int,
        scale: float,
        bias: bool,
        dtype: torch.dtype,
        device: torch.device,
    ) -> LoraLinear: ...


class LoraLinear(ABC):
    """y = x·Wᵀ + bias + scale·B·A·x for layers with a common input, whatever form W has."""

    streams = False
    """Whether the weight comes from host memory or other ranks each time."""

    def __init__(
        self,
        modules: Sequence[LoraModule],
        *,
        targeted: Sequence[bool],
        rank: int,
        scale: float,
        bias: bool,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.modules = tuple(modules)
        self.group: InputGroup = tuple(m for m, use in zip(modules, targeted, strict=True) if use)
        self.rank = rank
        self.scale = scale
        self.inputs = modules[0].in_features  # K
        self.outputs = sum(m.out_features for m in modules)  # N
        self.lora_columns = -(-rank * len(self.group) // ALIGNMENT) * ALIGNMENT  # R
        self.bias = torch.zeros(self.outputs, dtype=dtype, device=device) if bias else None  # (N,)

    def compute_with(self, a: Tensor, b: Tensor) -> None:
        """Use these A matrices, (R, K), and B matrices, (N, R), the latter scaled; due in each subclass."""
        self.a, self.b = a, b
        self.kept_a, self.kept_b = a, b  # what `refresh` writes
        # Views are made once: in a small model making them anew costs as much as what they are used for.
        self._a_transposed, self._b_transposed = a.t(), b.t()

    @abstractmethod
    def place_of(self, module: LoraModule) -> Tensor | None:
        """Where the module's weight, (out_features, K), is to be written, if it is kept as it is."""

    @abstractmethod
    def forward(self, x: Tensor, masks: Masks | None = None) -> tuple[Tensor, Tensor]:
        """The output, (tokens, N), and x·Aᵀ, (tokens, R); x is (tokens, K)."""

    @abstractmethod
    def backward(self, dy: Tensor, masks: Masks | None = None) -> tuple[Tensor, Tensor]:
        """The gradients of x, (tokens, K), and of A·x, (tokens, R); dy is (tokens, N)."""

    def forget(self) -> None:  # noqa: B027
        """Rely on nothing that was made of the weights before; nothing to do where all is kept."""

    def rows_of(self, module: LoraModule) -> slice:
        """The rows of N that belong to `module`."""
        start = 0
        for m in self.modules:
            if m is module:
                break
            start += m.out_features
        return slice(start, start + module.out_features)

    def bind(self, lora: LoraParameters, gradients: Tensor) -> None:
        """Use the matrices of `lora`, and write gradients into `gradients`, laid out like its buffer."""
        if not self.group:
            return
        used = slice(0, self.rank * len(self.group))
        self._used = None if used.stop == self.lora_columns else used
        self._columns = [slice(i * self.rank, (i + 1) * self.rank) for i in range(len(self.group))]
        self.a_gradient = lora.stacked_a(gradients, self.group)  # (used, K)
        self.b_gradients = [lora.b(gradients, m) for m in self.group]  # (outputs of m, rank)
        self._rows = [None if len(self.modules) == 1 else self.rows_of(m) for m in self.group]
        self.a_values = lora.stacked_a(lora.values, self.group)
        self.b_values = [lora.b(lora.values, m) for m in self.group]
        self.a_place = self.kept_a[used]
        self.b_places = [
            self.kept_b[self.rows_of(m), columns]
            for m, columns in zip(self.group, self._columns, strict=True)
        ]

    def backward_to_lora(self, dy: Tensor) -> Tensor:
        """The gradient of A·x alone, where nothing before the layer is trained."""
        return dy @ self.kept_b  # (tokens, R)

    def gradients(
        self, dy: Tensor, d_lora_hidden: Tensor, x: Tensor, lora_hidden: Tensor, masks: Masks | None = None
    ) -> None:
        """Write both gradients into the gradient buffer."""
        self.write_a_gradient(d_lora_hidden, x, masks)
        self.write_b_gradients(dy, lora_hidden)

    def write_a_gradient(self, d_lora_hidden: Tensor, x: Tensor, masks: Masks | None = None) -> None:
        """dA = d_lora_hiddenᵀ·x."""
        if not self.group:
            return
        if masks is None:
            used = d_lora_hidden if self._used is None else d_lora_hidden[:, self._used]
            torch.mm(used.t(), x, out=self.a_gradient)  # (rank · modules, K)
        else:
            for columns, masked in self._masked(x, masks):
                torch.mm(d_lora_hidden[:, columns].t(), masked, out=self.a_gradient[columns])

    def write_b_gradients(self, dy: Tensor, lora_hidden: Tensor) -> None:
        """dB = scale·dyᵀ·lora_hidden of each module."""
        if not self.group:
            return
        for gradient, rows, columns in zip(self.b_gradients, self._rows, self._columns, strict=True):
            d_rows = dy if rows is None else dy[:, rows]  # (tokens, out_features of the module)
            gradient.addmm_(d_rows.t(), lora_hidden[:, columns], beta=0, alpha=self.scale)

    def lora_hidden(self, x: Tensor, masks: Masks | None) -> Tensor:
        """x·Aᵀ as a product of its own, (tokens, R)."""
        if masks is None:
            return torch.mm(x, self._a_transposed)
        found = x.new_zeros(x.shape[0], self.lora_columns)
        for columns, masked in self._masked(x, masks):
            found[:, columns] = masked @ self.a[columns].t()
        return found

    def add_through_b(self, y: Tensor, lora_hidden: Tensor) -> Tensor:
        """y, (tokens, N), with lora_hidden·Bᵀ added to it in place."""
        return y.addmm_(lora_hidden, self._b_transposed)

    def add_through_a(self, dx: Tensor, d_lora_hidden: Tensor, masks: Masks | None) -> Tensor:
        """dx, (tokens, K), with d_lora_hidden·A added to it in place."""
        if masks is None:
            return dx.addmm_(d_lora_hidden, self.a)
        for index, columns in enumerate(self._columns):
            dx.add_(masks.draw(dx, index).mul_(d_lora_hidden[:, columns] @ self.a[columns]))
        return dx

    def _masked(self, x: Tensor, masks: Masks) -> Iterator[tuple[slice, Tensor]]:
        """Each LoRA's columns of R and its own dropped-out input."""
        for index, columns in enumerate(self._columns):
            yield columns, masks.draw(x, index).mul_(x)


class FusedLoraLinear(LoraLinear):
    """With W, A and B in one buffer, see the module.

    Args:
        fused: the buffer to compute with; None makes one.
        settings: of `LoraLinear`.
    """

    def __init__(
        self, modules: Sequence[LoraModule], *, fused: Tensor | None = None, **settings: Any
    ) -> None:
        super().__init__(modules, **settings)
        if fused is None:
            rows, columns = self.outputs + self.lora_columns, self.inputs + self.lora_columns
            fused = torch.empty(rows, columns, dtype=settings["dtype"], device=settings["device"])
            fused[self.outputs :].zero_()
            fused[:, self.inputs :].zero_()
        self.fused = fused
        self.weight_and_b = self.fused[: self.outputs]  # (N, K + R)
        self.weight_and_a = self.fused[:, : self.inputs]  # (N + R, K)
        self.weight = self.weight_and_b[:, : self.inputs]  # (N, K)
        self._weight_and_a_transposed = self.weight_and_a.t()
        self.compute_with(a=self.weight_and_a[self.outputs :], b=self.weight_and_b[:, self.inputs :])

    def place_of(self, module: LoraModule) -> Tensor | None:
        return self.weight[self.rows_of(module)]

    def forward(self, x: Tensor, masks: Masks | None = None) -> tuple[Tensor, Tensor]:
        if not self.group:
            # It is kept, and a view of x would keep that.
            return F.linear(x, self.weight, self.bias), x.new_empty(len(x), 0)
        if self.outputs > self.inputs or masks is not None:
            if masks is None:
                extended, lora_hidden = extended_by(x, self._a_transposed)
            else:
                lora_hidden = self.lora_hidden(x, masks)
                extended = torch.cat([x, lora_hidden], 1)
            # extended: (tokens, K + R); lora_hidden: (tokens, R)
            return F.linear(extended, self.weight_and_b, self.bias), lora_hidden
        both = torch.mm(x, self._weight_and_a_transposed)  # (tokens, N + R)
        y, lora_hidden = both.split_with_sizes(
            [self.outputs, self.lora_columns], 1
        )  # (tokens, N), (tokens, R)
        lora_hidden = lora_hidden.contiguous()  # it is kept, and must not keep `both`
        y = self.add_through_b(y, lora_hidden)
        return (y if self.bias is None else y.add_(self.bias)), lora_hidden

    def backward(self, dy: Tensor, masks: Masks | None = None) -> tuple[Tensor, Tensor]:
        if not self.group:
            return dy @ self.weight, dy.new_empty(len(dy), 0)
        if self.outputs <= self.inputs and masks is None:
            extended, d_lora_hidden = extended_by(dy, self.b)  # (tokens, N + R), (tokens, R)
            return torch.mm(extended, self.weight_and_a), d_lora_hidden
        both = torch.mm(dy, self.weight_and_b)  # (tokens, K + R)
        dx, d_lora_hidden = both.split_with_sizes(
            [self.inputs, self.lora_columns], 1
        )  # (tokens, K), (tokens, R)
        return self.add_through_a(dx, d_lora_hidden, masks), d_lora_hidden


class Refresh:
    """Copies the LoRA's values into what `linears` compute with; due after each optimizer step."""

    def __init__(self, linears: Sequence[LoraLinear]) -> None:
        bound = [linear for linear in linears if linear.group]
        self._a = [(linear.a_place, linear.a_values) for linear in bound]
        self._b = [
            (place, values, linear.scale)
            for linear in bound
            for place, values in zip(linear.b_places, linear.b_values, strict=True)
        ]
        self._table: CopyTable | None = None

    def __call__(self) -> None:
        if not self._a:
            return
        if has_kernels(self._a[0][0]):
            self._table = self._table or self._on_gpu()
            self._table.copy()
        else:
            self._copy()

    def _on_gpu(self) -> CopyTable:
        from .refresh_kernel import Copied, CopyTable

        return CopyTable([*(Copied(*each, 1.0) for each in self._a), *(Copied(*each) for each in self._b)])

    def _copy(self) -> None:
        # Two calls, whatever the number of layers: a call per matrix would hold up a small model.
        places, values, scales = map(list, zip(*self._b, strict=True))
        scaled = torch._foreach_mul(values, scales)  # pyright: ignore
        a_places, a_values = map(list, zip(*self._a, strict=True))
        torch._foreach_copy_(a_places + places, a_values + list(scaled))  # pyright: ignore
