"""One layer of a decoder: its weights, its forward, and its backward by hand.

Only the gradients of the LoRA matrices and of activations are computed. Shapes as in `decoder`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple, Protocol

from torch import Tensor

from ...models.attention_heads import Heads
from ..loop.batch import Segments
from .attention import Attention
from .decoder_config import DecoderConfig
from .dense_beside_experts import DenseBesideExperts
from .expert_linear import ExpertLinear
from .head_rotation import Angles, head_rotation
from .layer_embeddings import BranchMasks, EmbeddingBranch, LayerInputs
from .lora_linear import LoraLinear, Masks
from .mlp import DenseMlp, MlpMasks
from .residual_stream import ResidualStream
from .shared_keys import SharedKeys
from .sparse_mlp import SparseMlp


class BranchNorms(NamedTuple):
    """The weights of a layer's norms, each (hidden_size,), None where the family has none."""

    before_attention: Tensor | None
    after_attention: Tensor | None
    before_mlp: Tensor | None
    after_mlp: Tensor | None


Mlp = DenseMlp | SparseMlp | DenseBesideExperts


@dataclass
class Layer:
    """The weights of one decoder layer."""

    index: int
    heads: Heads
    norms: BranchNorms
    qkv: LoraLinear  # hidden_size → (num_heads + 2 · num_kv_heads) · head_dim, of what it projects
    qk_norm: Tensor | None  # (num_heads + num_kv_heads, head_dim), with rows of 1 for normed values
    o_proj: LoraLinear  # num_heads · head_dim → hidden_size
    mlp: Mlp
    window: int | None  # positions, the token itself included
    rotation: int  # which of the model's rotations
    sinks: Tensor | None  # (num_heads,)
    embedding: EmbeddingBranch | None  # after the MLP
    scalar: Tensor | None  # (1,), of the layer's output

    def linears(self) -> tuple[LoraLinear, ...]:
        of_embedding = () if self.embedding is None else self.embedding.linears()
        return self.qkv, self.o_proj, *self.mlp.linears(), *of_embedding

    def experts(self) -> tuple[ExpertLinear, ...]:
        return () if isinstance(self.mlp, DenseMlp) else self.mlp.experts()


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
    after_mlp: Tensor | None = None  # (tokens, hidden_size), where a branch from token embeddings follows


class LayerMasks(NamedTuple):
    """Dropout masks by linear; None without dropout."""

    qkv: Masks | None
    o_proj: Masks | None
    gate_up: Masks | None
    down_proj: Masks | None
    embedding_gate: Masks | None
    embedding_back: Masks | None

    @property
    def mlp(self) -> MlpMasks:
        return self.gate_up, self.down_proj

    @property
    def embedding(self) -> BranchMasks:
        return self.embedding_gate, self.embedding_back


class Inputs(Protocol):
    """What a forward pass reads of a batch."""

    @property
    def input_ids(self) -> Tensor: ...

    @property
    def position_ids(self) -> Tensor: ...

    @property
    def segments(self) -> Segments: ...


@dataclass
class RowContext:
    """What all layers share in one micro-batch."""

    batch: Inputs
    rotations: tuple[Angles, ...]
    """cos and sin of each position's angles, by rotation of the model."""
    masks: Masks | None
    keys: SharedKeys
    inputs: LayerInputs | None = None

    def masks_of(self, index: int) -> LayerMasks:
        """The dropout masks of a layer's linears, at most four draws each."""
        return LayerMasks(*(self._mask(32 * index + 4 * linear) for linear in range(6)))

    def mask_of_inputs(self) -> Masks | None:
        """That of what makes the layers' inputs."""
        return self._mask(24)  # layer 0 has six linears, and layer 1 begins at 32

    def _mask(self, draw: int) -> Masks | None:
        return None if self.masks is None else replace(self.masks, seed=self.masks.seed + draw)


class LayerPass:
    """Forward and backward of a model's layers, with what its family has chosen once."""

    def __init__(
        self,
        config: DecoderConfig,
        attentions: Mapping[int, Attention],
        stream: ResidualStream,
    ) -> None:
        """Args:
        attentions: by dimensions of a head.
        """
        self.attentions = attentions
        self.stream = stream
        self.rotations = {heads: head_rotation(config, heads) for heads in dict.fromkeys(config.heads)}
        self.parallel = config.family.parallel

    def forward(
        self, layer: Layer, hidden: Tensor, normed: Tensor, context: RowContext, masks: LayerMasks
    ) -> tuple[Tensor, Tensor, Saved]:
        """The residual stream after attention, what the MLP adds to it, and what to keep."""
        heads, norms = layer.heads, layer.norms
        raw, qkv_lora_hidden = layer.qkv.forward(normed, masks.qkv)  # (tokens, all heads · head_dim)
        raw = raw.view(len(raw), -1, heads.head_dim)  # (tokens, all heads, head_dim)
        qkv = self.rotations[heads].forward(raw, context.rotations[layer.rotation], layer.qk_norm)
        keys, values = context.keys.of(layer.index, heads, qkv)
        attended, attention = self.attentions[heads.head_dim].forward(
            qkv[:, : heads.num_heads], keys, values, context.batch.segments, layer.window, layer.sinks
        )
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

    def finish(
        self,
        layer: Layer,
        after_attention: Tensor,
        mlp_update: Tensor,
        before_next: Tensor | None,
        context: RowContext,
        masks: LayerMasks,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """The layer's output, what the next one reads of it, and `Saved.after_mlp`.

        Args:
            before_next: weight of the norm with which it is read.
        """
        after_mlp, scalar = layer.norms.after_mlp, layer.scalar
        if layer.embedding is None and scalar is None:
            return *self.stream.add(after_attention, mlp_update, after_mlp, before_next), None
        total, _ = self.stream.add(after_attention, mlp_update, after_mlp, None)
        hidden, kept = total, None
        if layer.embedding is not None:
            assert context.inputs is not None
            inputs, kept = context.inputs.of(layer.index), total
            hidden = layer.embedding.forward(total, inputs, self.stream, masks.embedding)
        if scalar is not None:
            hidden = hidden * scalar
        return hidden, self.stream.read(hidden, before_next), kept

    def again(self, layer: Layer, hidden: Tensor, context: RowContext, masks: LayerMasks) -> Saved:
        """What a backward needs, of a layer of which only the input was kept."""
        normed = self.stream.read(hidden, layer.norms.before_attention)
        after_attention, mlp_update, saved = self.forward(layer, hidden, normed, context, masks)
        if layer.embedding is None:
            return saved
        total, _ = self.stream.add(after_attention, mlp_update, layer.norms.after_mlp, None)
        return saved._replace(after_mlp=total)

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
        d_hidden = self._end_backward(layer, saved, d_hidden, context, masks)
        d_after_attention, d_normed_by_mlp = self._mlp_backward(layer, saved, d_hidden, masks)
        heads, norms = layer.heads, layer.norms
        d_update = self.stream.add_backward(d_after_attention, saved.attention_update, norms.after_attention)
        d_attended, d_lora_hidden = layer.o_proj.backward(d_update, masks.o_proj)
        layer.o_proj.gradients(
            d_update, d_lora_hidden, saved.attended, saved.o_proj_lora_hidden, masks.o_proj
        )
        d_attended = d_attended.reshape(-1, heads.num_heads, heads.head_dim)
        # dq: (tokens, num_heads, head_dim); dk, dv: (tokens, num_kv_heads, head_dim)
        dq, dk, dv = self.attentions[heads.head_dim].backward(d_attended, saved.attention)
        dk, dv = context.keys.own_gradients(layer.index, heads, dk, dv)
        angles = context.rotations[layer.rotation]
        d_qkv = self.rotations[heads].backward(dq, dk, dv, saved.qkv, angles, layer.qk_norm)
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

    def _end_backward(
        self, layer: Layer, saved: Saved, d_hidden: Tensor, context: RowContext, masks: LayerMasks
    ) -> Tensor:
        """The gradient of the stream after the MLP; the layer's share of that of its inputs is added."""
        if layer.scalar is not None:
            d_hidden = d_hidden * layer.scalar
        if layer.embedding is None:
            return d_hidden
        assert context.inputs is not None and saved.after_mlp is not None
        inputs = context.inputs.of(layer.index)
        d_hidden, d_inputs = layer.embedding.backward(
            d_hidden, saved.after_mlp, inputs, self.stream, masks.embedding
        )
        context.inputs.add_gradient(layer.index, d_inputs)
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
