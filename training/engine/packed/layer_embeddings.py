"""Embeddings that each token has for each layer, Gemma's "per-layer embeddings".

    inputs = (norm(projection(embedding) / √hidden_size) + √size · table[token]) / √2      for all layers
    hidden = hidden + norm(back(activation(gate(hidden)) · inputs of the layer))           in each layer

The table lies in host memory where weights stream, as the embedding does. The norm at the end of a layer is
the residual stream's affair.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .decoder_config import DecoderConfig
from .embedding import embedded
from .fused_ops import fused_on_cuda
from .gated_activations import GatedActivation
from .lora_linear import LoraLinear, Masks
from .norms import NORMS
from .residual_stream import ResidualStream

SHARE = 0.5**0.5
"""Of the token's row and of the projection in their sum."""


@fused_on_cuda
def combined(normed: Tensor, rows: Tensor, scale: float) -> Tensor:
    return ((normed.float() + rows.float() * scale) * SHARE).to(rows.dtype)


@dataclass
class LayerInputs:
    """Of one micro-batch, from its forward to its backward."""

    embedding: Tensor  # (tokens, hidden_size)
    lora_hidden: Tensor  # (tokens, R)
    values: Tensor  # (tokens, layers, size)
    gradients: Tensor | None  # the same, where the projection has a LoRA

    def of(self, layer: int) -> Tensor:
        return self.values[:, layer]

    def add_gradient(self, layer: int, gradient: Tensor) -> None:
        if self.gradients is not None:
            self.gradients[:, layer] = gradient


class LayerEmbeddings:
    """What makes the inputs of all layers.

    Args:
        table: (vocabulary, layers · size), also in pinned host memory.
        projection: hidden_size → layers · size.
        norm: (size,).
    """

    def __init__(self, config: DecoderConfig, table: Tensor, projection: LoraLinear, norm: Tensor) -> None:
        self.table, self.projection, self.norm = table, projection, norm
        self._size, self._eps = config.token_layer_size, config.norm_eps
        self._norm = NORMS[config.family.norm]
        self._shrink = config.hidden_size**-0.5
        self._scale = float(torch.tensor(self._size**0.5, dtype=table.dtype))  # rounded as the embedding's

    def forward(self, embedding: Tensor, input_ids: Tensor, masks: Masks | None) -> LayerInputs:
        projected, lora_hidden = self._projected(embedding, masks)
        normed = self._norm.forward(projected, self.norm, self._eps).view(len(embedding), -1)
        values = combined(normed, embedded(self.table, input_ids), self._scale)
        values = values.view(len(embedding), -1, self._size)
        gradients = torch.zeros_like(values) if self.projection.group else None
        return LayerInputs(embedding, lora_hidden, values, gradients)

    def backward(self, inputs: LayerInputs, masks: Masks | None) -> None:
        """Write the gradients of the projection's LoRA, once all layers have added theirs."""
        if inputs.gradients is None:
            return
        projected, _ = self._projected(inputs.embedding, masks)
        d_normed = inputs.gradients.view(-1, self._size) * SHARE
        d_projected = self._norm.gradient(d_normed, projected, self.norm, None, self._eps)
        d_projected = d_projected.view(len(inputs.embedding), -1) * self._shrink
        d_lora_hidden = self.projection.backward_to_lora(d_projected)
        self.projection.gradients(d_projected, d_lora_hidden, inputs.embedding, inputs.lora_hidden, masks)

    def _projected(self, embedding: Tensor, masks: Masks | None) -> tuple[Tensor, Tensor]:
        """(tokens · layers, size) before the norm, and x·Aᵀ."""
        projected, lora_hidden = self.projection.forward(embedding, masks)
        return (projected * self._shrink).view(-1, self._size), lora_hidden


BranchMasks = tuple[Masks | None, Masks | None]
"""Of the gate, and of the way back."""


class EmbeddingBranch:
    """What a layer adds to the residual stream from its inputs.

    Args:
        gate: hidden_size → size.
        back: size → hidden_size.
        norm: (hidden_size,), after it.
    """

    def __init__(self, gate: LoraLinear, back: LoraLinear, norm: Tensor, activation: GatedActivation) -> None:
        self.gate, self.back, self.norm, self.activation = gate, back, norm, activation

    def linears(self) -> tuple[LoraLinear, ...]:
        return self.gate, self.back

    def forward(self, hidden: Tensor, inputs: Tensor, stream: ResidualStream, masks: BranchMasks) -> Tensor:
        """The stream with the branch's output; inputs (tokens, size)."""
        gated = torch.cat([self.gate.forward(hidden, masks[0])[0], inputs], 1)  # (tokens, 2 · size)
        update, _ = self.back.forward(self.activation.forward(gated), masks[1])
        return stream.add(hidden, update, self.norm, None)[0]

    def backward(
        self, d_total: Tensor, hidden: Tensor, inputs: Tensor, stream: ResidualStream, masks: BranchMasks
    ) -> tuple[Tensor, Tensor]:
        """The gradients of `hidden` and `inputs`; only these are kept, and the branch is computed again."""
        gate, gate_lora_hidden = self.gate.forward(hidden, masks[0])
        gated = torch.cat([gate, inputs], 1)
        update, back_lora_hidden = self.back.forward(self.activation.forward(gated), masks[1])
        d_update = stream.add_backward(d_total, update, self.norm)
        d_activation, d_lora_hidden = self.back.backward(d_update, masks[1])
        activation, d_gated = self.activation.backward(d_activation, gated)
        self.back.gradients(d_update, d_lora_hidden, activation, back_lora_hidden, masks[1])
        d_gate, d_inputs = d_gated.chunk(2, -1)
        d_gate = d_gate.contiguous()
        d_hidden, d_lora_hidden = self.gate.backward(d_gate, masks[0])
        self.gate.gradients(d_gate, d_lora_hidden, hidden, gate_lora_hidden, masks[0])
        return d_total + d_hidden, d_inputs
