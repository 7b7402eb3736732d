"""Linear layers with a frozen weight in FP8 and their LoRA in the type of the activations.

Only the frozen products are in FP8. The LoRA's own, and both of its gradients, take activations as they are:
x·Aᵀ and lora_hidden·Bᵀ are products beside them, so that no LoRA value is ever rounded to 8 bits. They are
narrow, and cost the bytes of x and y once more each.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from ..lora_parameters import LoraModule
from .decoder_layer import Layer
from .fp8 import Fp8Weight, product
from .lora_linear import LoraLinear, Masks


class Fp8LoraLinear(LoraLinear):
    """A `LoraLinear` whose W is in FP8; a `MakeLinear`."""

    def __init__(self, modules: Sequence[LoraModule], **settings: Any) -> None:
        super().__init__(modules, **settings)
        kind: dict[str, Any] = {"dtype": settings["dtype"], "device": settings["device"]}
        self.weight = Fp8Weight.empty(self.outputs, self.inputs, settings["device"])
        self.compute_with(
            a=torch.zeros(self.lora_columns, self.inputs, **kind),
            b=torch.zeros(self.outputs, self.lora_columns, **kind),
        )

    def place_of(self, module: LoraModule) -> Tensor | None:
        return None  # it is quantised together with its neighbours

    def places_in(self, whole: Tensor) -> dict[str, Tensor]:
        """The parts of W, (N, K), before it is quantised, by the names of a checkpoint's tensors."""
        return {f"{module.name}.weight": whole[self.rows_of(module)] for module in self.modules}

    def forward(self, x: Tensor, masks: Masks | None = None) -> tuple[Tensor, Tensor]:
        y, lora_hidden = self.forward_apart(x, masks)
        return (self.add_through_b(y, lora_hidden) if self.group else y), lora_hidden

    def forward_apart(self, x: Tensor, masks: Masks | None = None) -> tuple[Tensor, Tensor]:
        """As `forward`, with an output to which lora_hidden·Bᵀ has yet to be added."""
        y = product(x, self.weight.by_rows, self.bias)  # (tokens, N)
        return y, self.lora_hidden(x, masks) if self.group else x.new_empty(len(x), 0)

    def backward(self, dy: Tensor, masks: Masks | None = None) -> tuple[Tensor, Tensor]:
        dx, d_lora_hidden = self.backward_apart(dy)
        return (self.add_through_a(dx, d_lora_hidden, masks) if self.group else dx), d_lora_hidden

    def backward_apart(self, dy: Tensor) -> tuple[Tensor, Tensor]:
        """As `backward`, with a gradient to which d_lora_hidden·A has yet to be added."""
        dx = product(dy, self.weight.by_columns)  # (tokens, K)
        return dx, torch.mm(dy, self.b)  # (tokens, R)

    def frozen(self, x: Tensor, module: LoraModule) -> Tensor:
        """One module's output without its LoRA, (tokens, out_features); x is (tokens, K)."""
        rows = self.rows_of(module)
        return product(x, self.weight.by_rows.rows(rows), None if self.bias is None else self.bias[rows])


def fp8_linears(layers: Iterable[Layer]) -> Iterator[Fp8LoraLinear]:
    """The linears of these layers whose weights are in FP8."""
    for layer in layers:
        yield from (linear for linear in layer.linears() if isinstance(linear, Fp8LoraLinear))
