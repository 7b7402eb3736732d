"""A Llama-like decoder with LoRA: forward, and a backward by hand that stops at what is trained.

Only the gradients of the LoRA matrices and of activations are computed. What stays in memory per layer from
forward to backward is a choice, `recompute`:

    nothing      input, qkv, attention output, residual stream after attention, gate and up, x·Aᵀ
    gate_up      all but gate and up, whose GEMM runs again: frees the most for the least time
    everything   the input only; the whole layer runs again

Shapes: hidden (tokens, hidden_size), qkv (tokens, num_heads + 2 · num_kv_heads, head_dim); R is the LoRA
columns of a linear, rank · its targeted modules, filled up.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from ...config.fields import Recompute
from ...config.specs import LoraGroup
from ..loop.batch import PackedBatch, Segments
from ..lora_parameters import LoraModule, LoraParameters, lora_scale
from .attention import Attention, attention_for
from .decoder_config import DecoderConfig, targeted_modules
from .fused_cross_entropy import label_losses, loss_and_gradient
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
from .lora_linear import FusedLoraLinear, Masks, refresh


@dataclass
class Layer:
    """The weights of one decoder layer."""

    input_norm: Tensor  # (hidden_size,)
    qkv: FusedLoraLinear  # hidden_size → (num_heads + 2 · num_kv_heads) · head_dim
    qk_norm: Tensor | None  # (num_heads + num_kv_heads, head_dim)
    o_proj: FusedLoraLinear  # num_heads · head_dim → hidden_size
    post_attention_norm: Tensor  # (hidden_size,)
    gate_up: FusedLoraLinear  # hidden_size → 2 · intermediate_size
    down_proj: FusedLoraLinear  # intermediate_size → hidden_size
    window: int | None  # positions, the token itself included
    use_rope: bool

    def linears(self) -> tuple[FusedLoraLinear, ...]:
        return self.qkv, self.o_proj, self.gate_up, self.down_proj


class Saved(NamedTuple):
    """What a layer's backward needs of its forward."""

    hidden: Tensor  # (tokens, hidden_size)
    qkv: Tensor | None  # (tokens, num_heads + 2 · num_kv_heads, head_dim)
    """Before the norm of queries and keys, where there is one."""
    qkv_lora_hidden: Tensor  # (tokens, R), x·Aᵀ
    attended: Tensor  # (tokens, num_heads · head_dim)
    attention: Any  # what the attention's own backward needs
    o_proj_lora_hidden: Tensor  # (tokens, R)
    after_attention: Tensor  # (tokens, hidden_size)
    gate_up: Tensor | None  # (tokens, 2 · intermediate_size); None is computed again
    gate_up_lora_hidden: Tensor  # (tokens, R)
    down_proj_lora_hidden: Tensor  # (tokens, R)


class LayerMasks(NamedTuple):
    """Dropout masks by linear; None without dropout."""

    qkv: Masks | None
    o_proj: Masks | None
    gate_up: Masks | None
    down_proj: Masks | None


class Inputs(Protocol):
    """What a forward pass reads of a batch."""

    @property
    def input_ids(self) -> Tensor: ...

    @property
    def position_ids(self) -> Tensor: ...

    @property
    def segments(self) -> Segments: ...


class RowContext(NamedTuple):
    """What all layers share in one micro-batch."""

    batch: Inputs
    rope: tuple[Tensor, Tensor]
    """cos and sin of each position's angles, (tokens, head_dim / 2)."""
    no_rope: tuple[Tensor, Tensor]
    """cos and sin of angle 0, for layers without rotary positions."""
    masks: Masks | None

    def angles(self, layer: Layer) -> tuple[Tensor, Tensor]:
        return self.rope if layer.use_rope else self.no_rope

    def masks_of(self, index: int) -> LayerMasks:
        """The dropout masks of a layer's qkv, output, gate_up and down, at most four draws each."""
        if self.masks is None:
            return LayerMasks(None, None, None, None)
        seed = self.masks.seed + 16 * index
        return LayerMasks(*(replace(self.masks, seed=seed + 4 * linear) for linear in range(4)))


class PackedDecoder:
    """The model of the packed step. Its frozen weights are empty until `load_weights.load_weights`."""

    def __init__(
        self, config: DecoderConfig, lora: LoraGroup, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.config = config
        self.device = device
        self.dtype = dtype
        self.embedding = torch.empty(config.vocab_size, config.hidden_size, dtype=dtype, device=device)
        self.lm_head = self.embedding if config.tie_word_embeddings else torch.empty_like(self.embedding)
        self.final_norm = torch.empty(config.hidden_size, dtype=dtype, device=device)
        self.layers = [self._layer(index, lora) for index in range(config.num_layers)]
        groups = [linear.group for layer in self.layers for linear in layer.linears() if linear.group]
        self.lora = LoraParameters(groups, lora.r, device)
        self.attention: Attention = attention_for(device, dtype, config.head_dim)
        self._frequencies = config.inverse_frequencies.to(device)
        self._masks = Masks(lora.dropout, torch.Generator(device), 0) if lora.dropout else None
        self._gradients = torch.zeros_like(self.lora.gradients, dtype=dtype)  # of one micro-batch
        self._linears = [linear for layer in self.layers for linear in layer.linears()]
        for linear in self._linears:
            linear.bind(self.lora, self._gradients)

    def _layer(self, index: int, lora: LoraGroup) -> Layer:
        config, prefix = self.config, f"model.layers.{index}"
        query, key = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
        targets = targeted_modules(lora)

        def linear(inputs: int, outputs: dict[str, int], bias: bool) -> FusedLoraLinear:
            return FusedLoraLinear(
                [LoraModule(f"{prefix}.{name}", inputs, size) for name, size in outputs.items()],
                targeted=[name.rpartition(".")[2] in targets for name in outputs],
                rank=lora.r,
                scale=lora_scale(lora),
                bias=bias,
                dtype=self.dtype,
                device=self.device,
            )

        def norm(*sizes: int) -> Tensor:
            return torch.empty(sizes, dtype=self.dtype, device=self.device)

        hidden, inner = config.hidden_size, config.intermediate_size
        qkv = {"self_attn.q_proj": query, "self_attn.k_proj": key, "self_attn.v_proj": key}
        return Layer(
            input_norm=norm(hidden),
            qkv=linear(hidden, qkv, config.qkv_bias),
            qk_norm=norm(config.num_heads + config.num_kv_heads, config.head_dim) if config.qk_norm else None,
            o_proj=linear(query, {"self_attn.o_proj": hidden}, config.o_proj_bias),
            post_attention_norm=norm(hidden),
            gate_up=linear(hidden, {"mlp.gate_proj": inner, "mlp.up_proj": inner}, config.mlp_bias),
            down_proj=linear(inner, {"mlp.down_proj": hidden}, config.mlp_bias),
            window=config.windows[index],
            use_rope=config.use_rope[index],
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
        hidden, saved, context = self.forward_keeping(batch, recompute, seed=seed)
        loss, d_hidden = self.loss_and_gradient(hidden, batch, weight)
        self.backward_through(saved, d_hidden, context)
        return loss

    @property
    def has_dropout(self) -> bool:
        return self._masks is not None

    def forward_keeping(
        self, batch: Inputs, recompute: Recompute, *, seed: int = 0
    ) -> tuple[Tensor, list[Saved | Tensor], RowContext]:
        """The last layer's output, what to keep of each layer, and what layers share, for the backward."""
        context = self._context(batch, self._masks and replace(self._masks, seed=seed))
        hidden, saved = self._forward(context, recompute)
        return hidden, saved, context

    def backward_through(self, saved: list[Saved | Tensor], d_hidden: Tensor, context: RowContext) -> None:
        """Add to `lora.gradients`, given the gradient of the last layer's output; uses `saved` up."""
        for index in reversed(range(len(self.layers))):
            kept = saved.pop()  # popped and deleted: a layer's activations go as soon as they are used
            if isinstance(kept, Tensor):
                normed = rms_norm(kept, self.layers[index].input_norm, self.config.rms_norm_eps)
                kept = self._layer_forward(index, kept, normed, context)[2]
            d_hidden = self._layer_backward(index, kept, d_hidden, context)
            del kept
        # The layers overwrite `_gradients`; only whole micro-batches reach the step's sum, so one that runs
        # out of memory leaves it as it was.
        self.lora.gradients.add_(self._gradients)

    @torch.no_grad()
    def loss(self, batch: PackedBatch) -> Tensor:
        """Sum of the cross-entropies of a batch, without dropout."""
        return self.label_losses(batch).sum()

    @torch.no_grad()
    def label_losses(self, batch: PackedBatch) -> Tensor:
        """The cross-entropy at each label position, (label_tokens,), without dropout."""
        hidden = self._forward(self._context(batch, None), None)[0]
        rows = hidden[batch.label_positions]  # (label_tokens, hidden_size)
        normed = rms_norm(rows, self.final_norm, self.config.rms_norm_eps)
        return label_losses(normed, self.lm_head, batch.targets)

    def _context(self, batch: Inputs, masks: Masks | None) -> RowContext:
        angles = batch.position_ids.float()[:, None] * self._frequencies  # (tokens, head_dim / 2)
        scale = self.config.rotary_scale
        no_rope = torch.ones_like(angles), torch.zeros_like(angles)
        return RowContext(batch, (angles.cos() * scale, angles.sin() * scale), no_rope, masks)

    def _forward(
        self, context: RowContext, recompute: Recompute | None
    ) -> tuple[Tensor, list[Saved | Tensor]]:
        """The last layer's output and what to keep of each layer; with None nothing is kept."""
        eps = self.config.rms_norm_eps
        hidden = self.embedding[context.batch.input_ids]  # (tokens, hidden_size)
        normed = rms_norm(hidden, self.layers[0].input_norm, eps)
        kept: list[Saved | Tensor] = []
        for index in range(len(self.layers)):
            after_attention, update, saved = self._layer_forward(index, hidden, normed, context)
            if recompute == "everything":
                kept.append(hidden)
            elif recompute is not None:
                kept.append(saved._replace(gate_up=None) if recompute == "gate_up" else saved)
            del saved  # before the next layer's activations come, or two layers' would be held at once
            if index + 1 < len(self.layers):
                hidden, normed = add_rms_norm(after_attention, update, self.layers[index + 1].input_norm, eps)
            else:
                hidden = after_attention + update
        return hidden, kept

    def _layer_forward(
        self, index: int, hidden: Tensor, normed: Tensor, context: RowContext
    ) -> tuple[Tensor, Tensor, Saved]:
        """The residual stream after attention, what the MLP adds to it, and what to keep."""
        layer, config, eps = self.layers[index], self.config, self.config.rms_norm_eps
        masks = context.masks_of(index)
        queries, rotated = config.num_heads, config.num_heads + config.num_kv_heads
        raw, qkv_lora_hidden = layer.qkv.forward(normed, masks.qkv)  # (tokens, all heads · head_dim)
        raw = raw.view(-1, rotated + config.num_kv_heads, config.head_dim)  # (tokens, all heads, head_dim)
        if layer.qk_norm is None:
            qkv = rotate(raw, *context.angles(layer), rotated)
        else:
            qkv = norm_rotate(raw, *context.angles(layer), layer.qk_norm, eps)
        attended, attention = self.attention.forward(
            qkv[:, :queries], qkv[:, queries:rotated], qkv[:, rotated:], context.batch.segments, layer.window
        )  # (tokens, num_heads, head_dim)
        attended = attended.reshape(len(hidden), -1)  # (tokens, num_heads · head_dim)
        update, o_proj_lora_hidden = layer.o_proj.forward(attended, masks.o_proj)  # (tokens, hidden_size)
        after_attention, normed = add_rms_norm(hidden, update, layer.post_attention_norm, eps)
        # gate_up: (tokens, 2 · intermediate_size)
        gate_up, gate_up_lora_hidden = layer.gate_up.forward(normed, masks.gate_up)
        update, down_proj_lora_hidden = layer.down_proj.forward(swiglu(gate_up), masks.down_proj)
        saved = Saved(
            hidden, None if layer.qk_norm is None else raw, qkv_lora_hidden, attended, attention,
            o_proj_lora_hidden, after_attention, gate_up, gate_up_lora_hidden, down_proj_lora_hidden,
        )  # fmt: skip
        return after_attention, update, saved

    def _layer_backward(self, index: int, saved: Saved, d_hidden: Tensor, context: RowContext) -> Tensor:
        """The gradient of the layer's input, given that of its output."""
        d_after_attention = self._mlp_backward(index, saved, d_hidden, context)  # (tokens, hidden_size)
        layer, config, eps = self.layers[index], self.config, self.config.rms_norm_eps
        masks = context.masks_of(index)
        d_attended, d_lora_hidden = layer.o_proj.backward(d_after_attention, masks.o_proj)
        layer.o_proj.gradients(
            d_after_attention, d_lora_hidden, saved.attended, saved.o_proj_lora_hidden, masks.o_proj
        )
        d_attended = d_attended.reshape(-1, config.num_heads, config.head_dim)
        # dq: (tokens, num_heads, head_dim); dk, dv: (tokens, num_kv_heads, head_dim)
        dq, dk, dv = self.attention.backward(d_attended, saved.attention)
        if layer.qk_norm is None:
            d_qkv = rotate_backward(dq, dk, dv, *context.angles(layer))
        else:
            assert saved.qkv is not None
            d_qkv = norm_rotate_backward(dq, dk, dv, saved.qkv, *context.angles(layer), layer.qk_norm, eps)
        d_qkv = d_qkv.view(len(d_hidden), -1)  # (tokens, all heads · head_dim)
        if index == 0:  # nothing before this layer is trained: the gradient of its input is not needed
            normed = rms_norm(saved.hidden, layer.input_norm, eps)
            d_lora_hidden = layer.qkv.backward_to_lora(d_qkv)
            d_hidden = d_after_attention
        else:
            d_normed, d_lora_hidden = layer.qkv.backward(d_qkv, masks.qkv)
            d_hidden, normed = rms_norm_backward(
                d_normed, saved.hidden, layer.input_norm, d_after_attention, eps
            )
        layer.qkv.gradients(d_qkv, d_lora_hidden, normed, saved.qkv_lora_hidden, masks.qkv)
        return d_hidden

    def _mlp_backward(self, index: int, saved: Saved, d_hidden: Tensor, context: RowContext) -> Tensor:
        """The gradient of the residual stream after attention."""
        layer, eps, masks = self.layers[index], self.config.rms_norm_eps, context.masks_of(index)
        # d_activation: (tokens, intermediate_size)
        d_activation, d_lora_hidden = layer.down_proj.backward(d_hidden, masks.down_proj)
        gate_up = saved.gate_up
        if gate_up is None:
            normed = rms_norm(saved.after_attention, layer.post_attention_norm, eps)
            gate_up, _ = layer.gate_up.forward(normed, masks.gate_up)
        activation, d_gate_up = swiglu_backward(d_activation, gate_up)
        # The widest tensors of the layer: each goes before the next one is made, or memory peaks here.
        del d_activation, gate_up
        layer.down_proj.gradients(
            d_hidden, d_lora_hidden, activation, saved.down_proj_lora_hidden, masks.down_proj
        )
        del activation
        # d_gate_up: (tokens, 2 · intermediate_size); d_normed: (tokens, hidden_size)
        d_normed, d_lora_hidden = layer.gate_up.backward(d_gate_up, masks.gate_up)
        d_after_attention, normed = rms_norm_backward(
            d_normed, saved.after_attention, layer.post_attention_norm, d_hidden, eps
        )
        layer.gate_up.gradients(d_gate_up, d_lora_hidden, normed, saved.gate_up_lora_hidden, masks.gate_up)
        return d_after_attention

    def loss_and_gradient(self, hidden: Tensor, batch: PackedBatch, weight: Tensor) -> tuple[Tensor, Tensor]:
        """The loss and the gradient of the last layer's output, which is 0 on rows without a label."""
        eps = self.config.rms_norm_eps
        rows = hidden[batch.label_positions]  # (label_tokens, hidden_size)
        normed = rms_norm(rows, self.final_norm, eps)
        loss, d_normed = loss_and_gradient(normed, self.lm_head, batch.targets, weight)
        # d_rows: (label_tokens, hidden_size)
        d_rows, _ = rms_norm_backward(d_normed, rows, self.final_norm, None, eps)
        return loss, torch.zeros_like(hidden).index_copy_(0, batch.label_positions, d_rows)
