"""A Llama-like decoder with LoRA: forward, and a backward by hand that stops at what is trained.

Only the gradients of the LoRA matrices and of activations are computed. What stays in memory per layer from
forward to backward is a choice, `recompute`:

    nothing      input, qkv, attention output, sum in the middle, gate and up, and the narrow LoRA inputs
    gate_up      all but gate and up, whose GEMM runs again: frees the most for the least time
    everything   the input only; the whole layer runs again

Shapes: hidden (tokens, hidden_size), qkv (tokens, heads + 2 · key_value_heads, head_dim).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from ..loop.batch import PackedBatch, Segments
from ..loop.lora_parameters import LoraModule, LoraParameters
from ..plan import Lora, Recompute
from .attention import Attention, attention_for
from .decoder_config import DecoderShape, targeted_modules
from .fused_cross_entropy import loss_and_gradient, loss_sum
from .fused_ops import (
    add_rms_norm,
    norm_rotate,
    norm_rotate_backward,
    rms_norm,
    rms_norm_backward,
    rotate,
    rotate_backward,
    swiglu,
    swiglu_backward,
)
from .lora_linear import FoldedLinear, Masks, refresh


@dataclass
class Layer:
    """The weights of one decoder layer."""

    input_norm: Tensor  # (hidden_size,)
    qkv: FoldedLinear
    qk_norm: Tensor | None  # (heads + key_value_heads, head_dim)
    output: FoldedLinear
    middle_norm: Tensor  # (hidden_size,)
    gate_up: FoldedLinear
    down: FoldedLinear
    window: int | None
    rotated: bool

    def linears(self) -> tuple[FoldedLinear, ...]:
        return self.qkv, self.output, self.gate_up, self.down


class Saved(NamedTuple):
    """What a layer's backward needs of its forward."""

    hidden: Tensor
    qkv: Tensor | None
    """Before the norm of queries and keys, where there is one."""
    qkv_narrow: Tensor
    attended: Tensor
    attention: Any
    output_narrow: Tensor
    middle: Tensor
    gate_up: Tensor | None
    gate_up_narrow: Tensor
    down_narrow: Tensor


class LayerMasks(NamedTuple):
    """Dropout masks by linear; None without dropout."""

    qkv: Masks | None
    output: Masks | None
    gate_up: Masks | None
    down: Masks | None


class Inputs(Protocol):
    """What a forward pass reads of a batch."""

    @property
    def input_ids(self) -> Tensor: ...

    @property
    def position_ids(self) -> Tensor: ...

    @property
    def segments(self) -> Segments: ...


class Row(NamedTuple):
    """What all layers share in one micro-batch."""

    batch: Inputs
    turned: tuple[Tensor, Tensor]
    """cos and sin of each position's angles, (tokens, head_dim / 2)."""
    straight: tuple[Tensor, Tensor]
    """cos and sin of angle 0, for layers without rotary positions."""
    masks: Masks | None

    def angles(self, layer: Layer) -> tuple[Tensor, Tensor]:
        return self.turned if layer.rotated else self.straight

    def masks_of(self, index: int) -> LayerMasks:
        """The dropout masks of a layer's qkv, output, gate_up and down, at most four draws each."""
        if self.masks is None:
            return LayerMasks(None, None, None, None)
        seed = self.masks.seed + 16 * index
        return LayerMasks(*(replace(self.masks, seed=seed + 4 * linear) for linear in range(4)))


class PackedDecoder:
    """The model of the packed step. Its frozen weights are empty until `weights.load_weights`."""

    def __init__(self, shape: DecoderShape, lora: Lora, dtype: torch.dtype, device: torch.device) -> None:
        self.shape = shape
        self.device = device
        self.dtype = dtype
        self.embedding = torch.empty(shape.vocab_size, shape.hidden_size, dtype=dtype, device=device)
        self.head = self.embedding if shape.tied_head else torch.empty_like(self.embedding)
        self.last_norm = torch.empty(shape.hidden_size, dtype=dtype, device=device)
        self.layers = [self._layer(index, lora) for index in range(shape.layers)]
        groups = [linear.group for layer in self.layers for linear in layer.linears() if linear.group]
        self.lora = LoraParameters(groups, lora.r, device)
        self.attention: Attention = attention_for(device, dtype, shape.head_dim)
        self._frequencies = shape.inverse_frequencies.to(device)
        self._masks = Masks(lora.dropout, torch.Generator(device), 0) if lora.dropout else None
        self._gradients = torch.zeros_like(self.lora.gradients, dtype=dtype)  # of one micro-batch
        self._linears = [linear for layer in self.layers for linear in layer.linears()]
        for linear in self._linears:
            linear.bind(self.lora, self._gradients)

    def _layer(self, index: int, lora: Lora) -> Layer:
        shape, prefix = self.shape, f"model.layers.{index}"
        query, key = shape.heads * shape.head_dim, shape.key_value_heads * shape.head_dim
        targets = targeted_modules(lora)

        def linear(inputs: int, outputs: dict[str, int], bias: bool) -> FoldedLinear:
            return FoldedLinear(
                [LoraModule(f"{prefix}.{name}", inputs, size) for name, size in outputs.items()],
                targeted=[name.rpartition(".")[2] in targets for name in outputs],
                rank=lora.r,
                scale=lora.scale,
                bias=bias,
                dtype=self.dtype,
                device=self.device,
            )

        def norm(*sizes: int) -> Tensor:
            return torch.empty(sizes, dtype=self.dtype, device=self.device)

        hidden, inner = shape.hidden_size, shape.intermediate_size
        qkv = {"self_attn.q_proj": query, "self_attn.k_proj": key, "self_attn.v_proj": key}
        return Layer(
            input_norm=norm(hidden),
            qkv=linear(hidden, qkv, shape.qkv_bias),
            qk_norm=norm(shape.heads + shape.key_value_heads, shape.head_dim) if shape.qk_norm else None,
            output=linear(query, {"self_attn.o_proj": hidden}, shape.output_bias),
            middle_norm=norm(hidden),
            gate_up=linear(hidden, {"mlp.gate_proj": inner, "mlp.up_proj": inner}, shape.mlp_bias),
            down=linear(inner, {"mlp.down_proj": hidden}, shape.mlp_bias),
            window=shape.windows[index],
            rotated=shape.rotated[index],
        )

    def refresh(self) -> None:
        """Take over changed LoRA values."""
        refresh(self._linears)

    @torch.no_grad()
    def forward_backward(
        self, batch: PackedBatch, weight: Tensor, *, seed: int, recompute: Recompute
    ) -> Tensor:
        """Add the gradients of weight · Σ cross-entropy to `lora.gradients`, and return that loss.

        Args:
            batch: on the decoder's device, with at least one label.
            weight: scalar tensor on the device.
            seed: of the dropout masks.
        """
        hidden, saved, row = self.forward_keeping(batch, recompute, seed=seed)
        loss, d_hidden = self.loss_and_gradient(hidden, batch, weight)
        self.backward_through(saved, d_hidden, row)
        return loss

    @property
    def has_dropout(self) -> bool:
        return self._masks is not None

    def forward_keeping(
        self, batch: Inputs, recompute: Recompute, *, seed: int = 0
    ) -> tuple[Tensor, list[Saved | Tensor], Row]:
        """The last layer's output, what to keep of each layer, and what layers share, for the backward."""
        row = self._row(batch, self._masks and replace(self._masks, seed=seed))
        hidden, saved = self._forward(row, recompute)
        return hidden, saved, row

    def backward_through(self, saved: list[Saved | Tensor], d_hidden: Tensor, row: Row) -> None:
        """Add to `lora.gradients`, given the gradient of the last layer's output; uses `saved` up."""
        for index in reversed(range(len(self.layers))):
            kept = saved.pop()
            if isinstance(kept, Tensor):
                normed = rms_norm(kept, self.layers[index].input_norm, self.shape.rms_norm_eps)
                kept = self._layer_forward(index, kept, normed, row)[2]
            d_hidden = self._layer_backward(index, kept, d_hidden, row)
            del kept
        self.lora.gradients.add_(self._gradients)

    @torch.no_grad()
    def loss(self, batch: PackedBatch) -> Tensor:
        """Sum of the cross-entropies of a batch, without dropout."""
        hidden = self._forward(self._row(batch, None), None)[0][batch.rows]
        return loss_sum(rms_norm(hidden, self.last_norm, self.shape.rms_norm_eps), self.head, batch.targets)

    def _row(self, batch: Inputs, masks: Masks | None) -> Row:
        angles = batch.position_ids.float()[:, None] * self._frequencies  # (tokens, head_dim / 2)
        scale = self.shape.rotary_scale
        straight = torch.ones_like(angles), torch.zeros_like(angles)
        return Row(batch, (angles.cos() * scale, angles.sin() * scale), straight, masks)

    def _forward(self, row: Row, recompute: Recompute | None) -> tuple[Tensor, list[Saved | Tensor]]:
        """The last layer's output and what to keep of each layer; with None nothing is kept."""
        eps = self.shape.rms_norm_eps
        hidden = self.embedding[row.batch.input_ids]
        normed = rms_norm(hidden, self.layers[0].input_norm, eps)
        kept: list[Saved | Tensor] = []
        for index in range(len(self.layers)):
            middle, update, saved = self._layer_forward(index, hidden, normed, row)
            if recompute == "everything":
                kept.append(hidden)
            elif recompute is not None:
                kept.append(saved._replace(gate_up=None) if recompute == "gate_up" else saved)
            del saved
            if index + 1 < len(self.layers):
                hidden, normed = add_rms_norm(middle, update, self.layers[index + 1].input_norm, eps)
            else:
                hidden = middle + update
        return hidden, kept

    def _layer_forward(
        self, index: int, hidden: Tensor, normed: Tensor, row: Row
    ) -> tuple[Tensor, Tensor, Saved]:
        """The residual stream in the middle of the layer, what the MLP adds to it, and what to keep."""
        layer, shape, eps = self.layers[index], self.shape, self.shape.rms_norm_eps
        masks = row.masks_of(index)
        queries, rotated = shape.heads, shape.heads + shape.key_value_heads
        raw, qkv_narrow = layer.qkv.forward(normed, masks.qkv)
        raw = raw.view(-1, rotated + shape.key_value_heads, shape.head_dim)
        if layer.qk_norm is None:
            qkv = rotate(raw, *row.angles(layer), rotated)
        else:
            qkv = norm_rotate(raw, *row.angles(layer), layer.qk_norm, eps)
        attended, attention = self.attention.forward(
            qkv[:, :queries], qkv[:, queries:rotated], qkv[:, rotated:], row.batch.segments, layer.window
        )
        attended = attended.reshape(len(hidden), -1)
        update, output_narrow = layer.output.forward(attended, masks.output)
        middle, normed = add_rms_norm(hidden, update, layer.middle_norm, eps)
        gate_up, gate_up_narrow = layer.gate_up.forward(normed, masks.gate_up)
        update, down_narrow = layer.down.forward(swiglu(gate_up), masks.down)
        saved = Saved(
            hidden, None if layer.qk_norm is None else raw, qkv_narrow, attended, attention, output_narrow,
            middle, gate_up, gate_up_narrow, down_narrow,
        )  # fmt: skip
        return middle, update, saved

    def _layer_backward(self, index: int, saved: Saved, d_hidden: Tensor, row: Row) -> Tensor:
        """The gradient of the layer's input, given that of its output."""
        d_middle = self._mlp_backward(index, saved, d_hidden, row)
        layer, shape, eps = self.layers[index], self.shape, self.shape.rms_norm_eps
        masks = row.masks_of(index)
        d_attended, d_narrow = layer.output.backward(d_middle, masks.output)
        layer.output.gradients(d_middle, d_narrow, saved.attended, saved.output_narrow, masks.output)
        d_attended = d_attended.reshape(-1, shape.heads, shape.head_dim)
        dq, dk, dv = self.attention.backward(d_attended, saved.attention)
        if layer.qk_norm is None:
            d_qkv = rotate_backward(dq, dk, dv, *row.angles(layer))
        else:
            assert saved.qkv is not None
            d_qkv = norm_rotate_backward(dq, dk, dv, saved.qkv, *row.angles(layer), layer.qk_norm, eps)
        d_qkv = d_qkv.view(len(d_hidden), -1)
        if index == 0:
            normed = rms_norm(saved.hidden, layer.input_norm, eps)
            d_narrow = layer.qkv.backward_to_lora(d_qkv)
            d_hidden = d_middle
        else:
            d_normed, d_narrow = layer.qkv.backward(d_qkv, masks.qkv)
            d_hidden, normed = rms_norm_backward(d_normed, saved.hidden, layer.input_norm, d_middle, eps)
        layer.qkv.gradients(d_qkv, d_narrow, normed, saved.qkv_narrow, masks.qkv)
        return d_hidden

    def _mlp_backward(self, index: int, saved: Saved, d_hidden: Tensor, row: Row) -> Tensor:
        """The gradient of the residual stream in the middle of the layer."""
        layer, eps, masks = self.layers[index], self.shape.rms_norm_eps, row.masks_of(index)
        d_activation, d_narrow = layer.down.backward(d_hidden, masks.down)
        gate_up = saved.gate_up
        if gate_up is None:
            normed = rms_norm(saved.middle, layer.middle_norm, eps)
            gate_up, _ = layer.gate_up.forward(normed, masks.gate_up)
        activation, d_gate_up = swiglu_backward(d_activation, gate_up)
        del d_activation, gate_up
        layer.down.gradients(d_hidden, d_narrow, activation, saved.down_narrow, masks.down)
        del activation
        d_normed, d_narrow = layer.gate_up.backward(d_gate_up, masks.gate_up)
        d_middle, normed = rms_norm_backward(d_normed, saved.middle, layer.middle_norm, d_hidden, eps)
        layer.gate_up.gradients(d_gate_up, d_narrow, normed, saved.gate_up_narrow, masks.gate_up)
        return d_middle

    def loss_and_gradient(self, hidden: Tensor, batch: PackedBatch, weight: Tensor) -> tuple[Tensor, Tensor]:
        """The loss and the gradient of the last layer's output, which is 0 on rows without a label."""
        eps = self.shape.rms_norm_eps
        rows = hidden[batch.rows]  # (label_tokens, hidden_size)
        normed = rms_norm(rows, self.last_norm, eps)
        loss, d_normed = loss_and_gradient(normed, self.head, batch.targets, weight)
        d_rows, _ = rms_norm_backward(d_normed, rows, self.last_norm, None, eps)
        return loss, torch.zeros_like(hidden).index_copy_(0, batch.rows, d_rows)
