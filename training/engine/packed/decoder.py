"""A decoder with LoRA: forward, and a backward by hand that stops at what is trained.

Its layers are in `decoder_layer`. What stays in memory per layer from
forward to backward is a choice, `recompute`:

    nothing      input, qkv, attention output, residual stream after attention, gate and up, x·Aᵀ
    gate_up      all but gate and up, whose GEMM runs again: frees the most for the least time
    everything   the input only; the whole layer runs again

Shapes: hidden (tokens, hidden_size), qkv (tokens, num_heads + 2 · num_kv_heads, head_dim); R is the LoRA
columns of a linear, rank · its targeted modules, filled up.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import torch
from torch import Tensor

from ...config.fields import Recompute
from ...config.specs import LoraGroup
from ..loop.batch import PackedBatch
from ..lora_parameters import LoraParameters
from .attention import Attention, attention_for
from .decoder_config import DecoderConfig
from .decoder_layer import Inputs, LayerPass, RowContext, Saved
from .embedding import embedded
from .expert_linear import ExpertLinear, MakeExpertLinear, refresh_experts
from .fused_cross_entropy import capped, label_losses, loss_and_gradient
from .lora_linear import FusedLoraLinear, LoraLinear, MakeLinear, Masks, Refresh
from .make_layer import LayerMaker
from .residual_stream import ResidualStream
from .sharded_store import ShardedStore
from .shared_keys import SharedKeys


class PackedDecoder:
    """The model of the packed step. Its frozen weights are empty until `load_weights.load_weights`.

    Args:
        linear, experts: make the linear layers, which decide how their weights are kept.
        embedding: (vocab_size, hidden_size), also in pinned host memory; None: on the device.
        layer_table: likewise the table with a row of each token for all layers, where there is one.
    """

    def __init__(
        self,
        config: DecoderConfig,
        lora: LoraGroup,
        dtype: torch.dtype,
        device: torch.device,
        linear: MakeLinear = FusedLoraLinear,
        experts: MakeExpertLinear = ExpertLinear,
        embedding: Tensor | None = None,
        layer_table: Tensor | None = None,
    ) -> None:
        self.config = config
        self.device = device
        self.unpinned = 0
        """Layers in host memory that the system did not let be pinned."""
        self.shards: ShardedStore | None = None
        """Where the layers' weights are gathered from, if each rank has a shard of them only."""
        self.dtype = dtype
        size = config.vocab_size, config.hidden_size
        self.embedding = torch.empty(size, dtype=dtype, device=device) if embedding is None else embedding
        tied = config.tie_word_embeddings
        self.lm_head = self.embedding if tied else torch.empty(size, dtype=dtype, device=device)
        self.final_norm = torch.empty(config.hidden_size, dtype=dtype, device=device)
        maker = LayerMaker(config, lora, dtype, device, linear, experts)
        self.layers = [maker.layer(index) for index in range(config.num_layers)]
        self.layer_embeddings = maker.layer_embeddings(layer_table)
        of_layers = [linear for layer in self.layers for linear in layer.linears()]
        self._linears = [*self.model_linears(), *of_layers]
        self._experts = [linear for layer in self.layers for linear in layer.experts()]
        groups = [linear.group for linear in [*self._linears, *self._experts] if linear.group]
        self.lora = LoraParameters(groups, lora.r, device)
        self.stream = ResidualStream(config)
        self.layer_pass = LayerPass(
            config,
            {size: self._attention(size) for size in {heads.head_dim for heads in config.heads}},
            self.stream,
        )
        self._rotations = [(each.inverse_frequencies.to(device), each.scale) for each in config.rotations]
        # Rounded as Gemma's is: √hidden_size = 50.6 becomes 50.5 in bf16.
        self._embedding_scale = float(torch.tensor(config.embedding_scale, dtype=dtype))
        self._masks = Masks(lora.dropout, torch.Generator(device), 0) if lora.dropout else None
        self._gradients = torch.zeros_like(self.lora.gradients, dtype=dtype)  # of one micro-batch
        for each in [*self._linears, *self._experts]:
            each.bind(self.lora, self._gradients)
        self._refresh = Refresh(self._linears)

    def _attention(self, head_dim: int) -> Attention:
        config = self.config
        return attention_for(
            self.device,
            self.dtype,
            head_dim,
            scale=config.attention_scale,
            cap=config.attention_cap,
            sinks=config.family.sinks,
        )

    def model_linears(self) -> tuple[LoraLinear, ...]:
        """Those outside of layers."""
        return () if self.layer_embeddings is None else (self.layer_embeddings.projection,)

    def refresh(self) -> None:
        """Take over changed LoRA values."""
        self._refresh()
        refresh_experts(self._experts)
        self.forget()

    def forget(self) -> None:
        """Rely on nothing that was made of the weights before."""
        for linear in [*self._linears, *self._experts]:
            linear.forget()

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
        with self.one_pass(backward=True):
            hidden, saved, context = self.forward_keeping(batch, recompute, seed=seed)
            loss, d_hidden = self.loss_and_gradient(hidden, batch, weight)
            self.backward_through(saved, d_hidden, context)
        return loss

    def one_pass(self, *, backward: bool) -> AbstractContextManager[None]:
        """Around each pass through the layers: see `passes`."""
        return nullcontext() if self.shards is None else self.shards.passes.one(backward=backward)

    @property
    def has_dropout(self) -> bool:
        return self._masks is not None

    @property
    def streams(self) -> bool:
        """Whether weights come from host memory or other ranks while it computes."""
        return any(linear.streams for linear in [*self._linears, *self._experts])

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
            layer, masks = self.layers[index], context.masks_of(index)
            if isinstance(kept, Tensor):
                kept = self.layer_pass.again(layer, kept, context, masks)
            d_hidden = self.layer_pass.backward(layer, kept, d_hidden, context, masks, first=index == 0)
            del kept
        if self.layer_embeddings is not None and context.inputs is not None:
            self.layer_embeddings.backward(context.inputs, context.mask_of_inputs())
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
        with self.one_pass(backward=False):
            hidden = self._forward(self._context(batch, None), None)[0]
        normed = self._head_input(hidden[batch.label_positions])  # (label_tokens, hidden_size)
        return label_losses(normed, self.lm_head, batch.targets, self.config.logits_cap)

    def logits(self, hidden: Tensor) -> Tensor:
        """Of the last layer's output, (tokens, vocab_size)."""
        return capped(self._head_input(hidden) @ self.lm_head.t(), self.config.logits_cap)

    def _head_input(self, hidden: Tensor) -> Tensor:
        normed = self.stream.read(hidden, self.final_norm)
        return normed if self.config.logits_scale == 1.0 else normed * self.config.logits_scale

    def _context(self, batch: Inputs, masks: Masks | None) -> RowContext:
        positions = batch.position_ids.float()[:, None]
        angles = [(positions * frequencies, scale) for frequencies, scale in self._rotations]
        rotations = tuple((a.cos() * scale, a.sin() * scale) for a, scale in angles)
        return RowContext(batch, rotations, masks, SharedKeys(self.config.heads))

    def _forward(
        self, context: RowContext, recompute: Recompute | None
    ) -> tuple[Tensor, list[Saved | Tensor]]:
        """The last layer's output and what to keep of each layer; with None nothing is kept."""
        stream, following = self.stream, [layer.norms.before_attention for layer in self.layers[1:]]
        hidden = embedded(self.embedding, context.batch.input_ids)  # (tokens, hidden_size)
        if self._embedding_scale != 1.0:
            hidden = hidden * self._embedding_scale
        if self.layer_embeddings is not None:
            ids, mask = context.batch.input_ids, context.mask_of_inputs()
            context.inputs = self.layer_embeddings.forward(hidden, ids, mask)
        normed = stream.read(hidden, self.layers[0].norms.before_attention)
        kept: list[Saved | Tensor] = []
        for layer, before_next in zip(self.layers, [*following, None], strict=True):
            masks = context.masks_of(layer.index)
            after_attention, update, saved = self.layer_pass.forward(layer, hidden, normed, context, masks)
            if recompute == "everything":
                kept.append(hidden)
            elif recompute is not None:
                lighter = recompute == "gate_up"
                kept.append(saved._replace(mlp=layer.mlp.lighter(saved.mlp)) if lighter else saved)
            del saved  # before the next layer's activations come, or two layers' would be held at once
            hidden, normed, after_mlp = self.layer_pass.finish(
                layer, after_attention, update, before_next, context, masks
            )
            if after_mlp is not None and kept and not isinstance(kept[-1], Tensor):
                kept[-1] = kept[-1]._replace(after_mlp=after_mlp)
        return hidden, kept

    def loss_and_gradient(self, hidden: Tensor, batch: PackedBatch, weight: Tensor) -> tuple[Tensor, Tensor]:
        """The loss and the gradient of the last layer's output, which is 0 on rows without a label."""
        config = self.config
        rows = hidden[batch.label_positions]  # (label_tokens, hidden_size)
        loss, d_normed = loss_and_gradient(
            self._head_input(rows), self.lm_head, batch.targets, weight, config.logits_cap
        )
        if config.logits_scale != 1.0:
            d_normed = d_normed * config.logits_scale
        # d_rows: (label_tokens, hidden_size)
        d_rows = self.stream.norm.gradient(d_normed, rows, self.final_norm, None, config.norm_eps)
        return loss, torch.zeros_like(hidden).index_copy_(0, batch.label_positions, d_rows)
