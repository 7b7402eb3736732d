"""One layer of a decoder: its weights, its forward, and its backward by hand.

Only the gradients of the LoRA matrices and of activations are computed. Shapes as in `decoder`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple, Protocol

from torch import Tensor

from ..loop.batch import Segments
from .attention import Attention
from .decoder_config import DecoderConfig
from .expert_linear import ExpertLinear
from .head_rotation import Angles, head_rotation
from .lora_linear import LoraLinear, Masks
from .mlp import DenseMlp, MlpMasks
from .residual_stream import ResidualStream
from .sparse_mlp import SparseMlp


class BranchNorms(NamedTuple):
    """The weights of a layer's norms, each (hidden_size,), None where the family has none."""

    before_attention: Tensor | None
    after_attention: Tensor | None
    before_mlp: Tensor | None
    after_mlp: Tensor | None


@dataclass
class Layer:
    """The weights of one decoder layer."""

    norms: BranchNorms
    qkv: LoraLinear  # hidden_size → (num_heads + 2 · num_kv_heads) · head_dim
    qk_norm: Tensor | None  # (num_heads + num_kv_heads, head_dim)
    o_proj: LoraLinear  # num_heads · head_dim → hidden_size
    mlp: DenseMlp | SparseMlp
    window: int | None  # positions, the token itself included
    rotation: int  # which of the model's rotations
    sinks: Tensor | None  # (num_heads,)

    def linears(self) -> tuple[LoraLinear, ...]:
        return self.qkv, self.o_proj, *self.mlp.linears()

    def experts(self) -> tuple[ExpertLinear, ...]:
        return self.mlp.experts() if isinstance(self.mlp, SparseMlp) else ()


class Saved(NamedTuple):
    """What a layer's backward needs of its forward."""

    hidden: Tensor  # (tokens, hidden_size)
    qkv: Tensor | None  # (tokens, num_heads + 2 · num_kv_heads, head_dim)
    """Before the norm of queries and keys, where there is one."""
    qkv_lora_hidden: Tensor  # (tokens, R), x·Aᵀ
    attended: Tensor  # (tokens, num_heads · head_dim)
    attention: Any  # what the attention's own backward needs
    o_proj_lora_hidden: Tensor  # (tokens, R)
    attention_update: Tensor | None  # (tokens, hidden_size), before a norm after attention
    after_attention: Tensor  # (tokens, hidden_size); of a parallel layer, its input
    mlp: Any  # what the MLP's own backward needs
    mlp_update: Tensor | None  # (tokens, hidden_size), before a norm after the MLP


class LayerMasks(NamedTuple):
    """Dropout masks by linear; None without dropout."""

    qkv: Masks | None
    o_proj: Masks | None
    gate_up: Masks | None
    down_proj: Masks | None

    @property
    def mlp(self) -> MlpMasks:
        return self.gate_up, self.down_proj


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
    rotations: tuple[Angles, ...]
    """cos and sin of each position's angles, by rotation of the model."""
    masks: Masks | None

    def masks_of(self, index: int) -> LayerMasks:
        """The dropout masks of a layer's qkv, output, gate_up and down, at most four draws each."""
        if self.masks is None:
            return LayerMasks(None, None, None, None)
        seed = self.masks.seed + 16 * index
        return LayerMasks(*(replace(self.masks, seed=seed + 4 * linear) for linear in range(4)))


class LayerPass:
    """Forward and backward of a model's layers, with what its family has chosen once."""

    def __init__(
        self,
        config: DecoderConfig,
        attention: Attention,
        stream: ResidualStream,
    ) -> None:
        self.config = config
        self.attention = attention
        self.stream = stream
        self.rotation = head_rotation(config)
        self.parallel = config.family.parallel

    def forward(
        self, layer: Layer, hidden: Tensor, normed: Tensor, context: RowContext, masks: LayerMasks
    ) -> tuple[Tensor, Tensor, Saved]:
        """The residual stream after attention, what the MLP adds to it, and what to keep."""
        config, norms = self.config, layer.norms
        queries, rotated = config.num_heads, config.num_heads + config.num_kv_heads
        raw, qkv_lora_hidden = layer.qkv.forward(normed, masks.qkv)  # (tokens, all heads · head_dim)
        raw = raw.view(-1, rotated + config.num_kv_heads, config.head_dim)  # (tokens, all heads, head_dim)
        qkv = self.rotation.forward(raw, context.rotations[layer.rotation], layer.qk_norm)
        attended, attention = self.attention.forward(
            qkv[:, :queries], qkv[:, queries:rotated], qkv[:, rotated:], context.batch.segments,
            layer.window, layer.sinks,
        )  # fmt: skip
        # attended: (tokens, num_heads, head_dim)
        attended = attended.reshape(len(hidden), -1)  # (tokens, num_heads · head_dim)
        # updates: (tokens, hidden_size)
        attention_update, o_proj_lora_hidden = layer.o_proj.forward(attended, masks.o_proj)
        after_attention, read = self.stream.add(
            hidden, attention_update, norms.after_attention, norms.before_mlp
        )
        mlp_update, kept = layer.mlp.forward(normed if self.parallel else read, masks.mlp)
        saved = Saved(
            hidden, None if layer.qk_norm is None else raw, qkv_lora_hidden, attended, attention,
            o_proj_lora_hidden, None if norms.after_attention is None else attention_update,
            hidden if self.parallel else after_attention, kept,
            None if norms.after_mlp is None else mlp_update,
        )  # fmt: skip
        return after_attention, mlp_update, saved

    def backward(
        self,
        layer: Layer,
        saved: Saved,
        d_hidden: Tensor,
        context: RowContext,
        masks: LayerMasks,
        first: bool,
    ) -> Tensor:
        """The gradient of the layer's input, given that of its output.

        Args:
            first: whether nothing before the layer is trained: the gradient of its input is not needed.
        """
        d_after_attention, d_normed_by_mlp = self._mlp_backward(layer, saved, d_hidden, masks)
        config, norms = self.config, layer.norms
        d_update = self.stream.add_backward(d_after_attention, saved.attention_update, norms.after_attention)
        d_attended, d_lora_hidden = layer.o_proj.backward(d_update, masks.o_proj)
        layer.o_proj.gradients(
            d_update, d_lora_hidden, saved.attended, saved.o_proj_lora_hidden, masks.o_proj
        )
        d_attended = d_attended.reshape(-1, config.num_heads, config.head_dim)
        # dq: (tokens, num_heads, head_dim); dk, dv: (tokens, num_kv_heads, head_dim)
        dq, dk, dv = self.attention.backward(d_attended, saved.attention)
        angles = context.rotations[layer.rotation]
        d_qkv = self.rotation.backward(dq, dk, dv, saved.qkv, angles, layer.qk_norm)
        d_qkv = d_qkv.view(len(d_hidden), -1)  # (tokens, all heads · head_dim)
        if first:
            normed = self.stream.read(saved.hidden, norms.before_attention)
            d_lora_hidden = layer.qkv.backward_to_lora(d_qkv)
            d_hidden = d_after_attention
        else:
            d_normed, d_lora_hidden = layer.qkv.backward(d_qkv, masks.qkv)
            if d_normed_by_mlp is not None:
                d_normed = d_normed + d_normed_by_mlp
            d_hidden, normed = self.stream.read_backward(
                d_normed, saved.hidden, norms.before_attention, d_after_attention
            )
        layer.qkv.gradients(d_qkv, d_lora_hidden, normed, saved.qkv_lora_hidden, masks.qkv)
        return d_hidden

    def _mlp_backward(
        self, layer: Layer, saved: Saved, d_hidden: Tensor, masks: LayerMasks
    ) -> tuple[Tensor, Tensor | None]:
        """The gradient of the stream after attention, and of what the MLP of a parallel layer read."""
        d_update = self.stream.add_backward(d_hidden, saved.mlp_update, layer.norms.after_mlp)
        source = saved.after_attention  # of a parallel layer its input
        before = layer.norms.before_attention if self.parallel else layer.norms.before_mlp
        read = partial(self.stream.read, source, before)
        # d_normed: (tokens, hidden_size)
        d_normed, write_gradients = layer.mlp.backward(d_update, saved.mlp, read, masks.mlp)
        if self.parallel:
            d_after_attention, normed = d_hidden, read()
        else:
            d_after_attention, normed = self.stream.read_backward(d_normed, source, before, d_hidden)
        write_gradients(normed)
        return d_after_attention, d_normed if self.parallel else None
