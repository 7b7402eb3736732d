"""A layer of a decoder without its weights: which linears, norms and experts it has, and which get a LoRA."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import torch
from torch import Tensor

from ...config.specs import LoraGroup
from ...models.attention_heads import Heads
from ...models.decoder_families import LAYER_EMBEDDING_MODULES
from ...models.expert_layers import DOWN, ExpertSizes
from ...planning.decoder_shape import targeted
from ..lora_parameters import LoraModule, lora_scale
from .decoder_config import (
    DecoderConfig,
    ExpertLinearSizes,
    LinearSizes,
    expert_linears,
    expert_name,
    layer_linears,
)
from .decoder_layer import BranchNorms, Layer, Mlp
from .dense_beside_experts import SIDE_NORMS, DenseBesideExperts, SideNorms
from .expert_linear import ExpertLinear, MakeExpertLinear
from .fused_mlp import dense_mlp
from .gated_activations import ACTIVATIONS, expert_activation
from .layer_embeddings import EmbeddingBranch, LayerEmbeddings
from .lora_linear import FusedLoraLinear, LoraLinear, MakeLinear
from .router import Router
from .sparse_mlp import SparseMlp


class Settings(TypedDict):
    """What all linears of a decoder are made with."""

    rank: int
    scale: float
    dtype: torch.dtype
    device: torch.device


class LayerMaker:
    """Makes the layers of a decoder.

    Args:
        linear, experts: make the linears, which decide how their weights are kept.
    """

    def __init__(
        self,
        config: DecoderConfig,
        lora: LoraGroup,
        dtype: torch.dtype,
        device: torch.device,
        linear: MakeLinear,
        experts: MakeExpertLinear,
    ) -> None:
        self.config, self._make, self._make_experts = config, linear, experts
        self._targets, self._dropout = targeted(lora, config.family), lora.dropout
        self._settings = Settings(rank=lora.r, scale=lora_scale(lora), dtype=dtype, device=device)

    def layer(self, index: int) -> Layer:
        config, sizes = self.config, layer_linears(self.config, index)
        heads, family = config.heads[index], config.family
        return Layer(
            index=index,
            heads=heads,
            norms=BranchNorms(*(self._empty(config.hidden_size) if name else None for name in family.norms)),
            qkv=self._linear(index, sizes.qkv),
            qk_norm=self._qk_norm(heads) if family.qk_norm else None,
            o_proj=self._linear(index, sizes.o_proj),
            mlp=self._mlp(index, sizes.gate_up, sizes.down_proj),
            window=config.windows[index],
            rotation=config.layer_rotations[index],
            sinks=self._empty(heads.num_heads) if family.sinks else None,
            embedding=self._embedding_branch(index, sizes.embedding_gate, sizes.embedding_projection),
            scalar=self._empty(1) if family.layer_scalar else None,
        )

    def layer_embeddings(self, table: Tensor | None) -> LayerEmbeddings | None:
        """What tokens have for each layer; None of a model without it.

        Args:
            table: (vocabulary, layers · size), also in pinned host memory; None: on the device.
        """
        config, name = self.config, LAYER_EMBEDDING_MODULES[2]
        if not config.token_layer_size:
            return None
        columns = config.num_layers * config.token_layer_size
        projection = FusedLoraLinear(
            [LoraModule(f"{config.place}.{name}", config.hidden_size, columns)],
            targeted=[name in self._targets],
            bias=False,
            **self._settings,
        )
        table = self._empty(config.token_layer_vocab, columns) if table is None else table
        return LayerEmbeddings(config, table, projection, self._empty(config.token_layer_size))

    def _embedding_branch(
        self, index: int, gate: LinearSizes | None, back: LinearSizes | None
    ) -> EmbeddingBranch | None:
        if gate is None or back is None:
            return None
        norm, activation = self._empty(self.config.hidden_size), ACTIVATIONS[self.config.activation]
        return EmbeddingBranch(self._linear(index, gate), self._linear(index, back), norm, activation)

    def _qk_norm(self, heads: Heads) -> Tensor:
        """Of queries and keys; values, if normed, have no weight: they are multiplied by 1."""
        count = heads.all if self.config.family.value_norm else heads.turned
        return self._empty(count, heads.head_dim).fill_(1)

    def _mlp(self, index: int, gate_up: LinearSizes | None, down: LinearSizes | None) -> Mlp:
        """Dense, or experts with a dense one, if there is one."""
        config, dense = self.config, None
        if gate_up is not None and down is not None:
            linears = self._linear(index, gate_up), self._linear(index, down)
            dense = dense_mlp(*linears, config.activation, self._dropout)
        if config.experts is None or not config.experts.sparse[index]:
            assert dense is not None
            return dense
        family = config.experts.family
        gate_up_experts, down_experts = expert_linears(config, index)
        sparse = SparseMlp(
            router=self._router(config.experts),
            gate_up=self._experts(index, gate_up_experts),
            down=self._experts(index, down_experts),
            activation=expert_activation(config),
            shared=None if family.beside else dense,
            shared_gate=self._empty(1, config.hidden_size) if family.shared_gate else None,
        )
        if not family.beside:
            return sparse
        assert dense is not None
        norms = SideNorms(*(self._empty(config.hidden_size) for _ in SIDE_NORMS))
        return DenseBesideExperts(dense, sparse, norms, config)

    def _linear(self, index: int, sizes: LinearSizes) -> LoraLinear:
        prefix = self._prefix(index)
        return self._make(
            [LoraModule(f"{prefix}.{name}", sizes.inputs, size) for name, size in sizes.outputs.items()],
            targeted=[name.rpartition(".")[2] in self._targets for name in sizes.outputs],
            bias=sizes.bias,
            **self._settings,
        )

    def _experts(self, index: int, sizes: ExpertLinearSizes) -> ExpertLinear:
        prefix = self._prefix(index)
        module = expert_module(prefix, sizes, self._targets)
        return self._make_experts(sizes, prefix, module=module, **self._settings)

    def _router(self, experts: ExpertSizes) -> Router:
        corrected = experts.family.routing == "sigmoid in groups"
        return Router(
            experts,
            weight=self._empty(experts.count, self.config.hidden_size),
            bias=self._empty(experts.count) if experts.family.bias else None,
            correction=torch.empty(experts.count, device=self._settings["device"]) if corrected else None,
            scale=self._empty(experts.count) if experts.family.beside else None,
        )

    def _prefix(self, index: int) -> str:
        return f"{self.config.place}.layers.{index}"

    def _empty(self, *sizes: int) -> Tensor:
        return torch.empty(sizes, dtype=self._settings["dtype"], device=self._settings["device"])


def expert_module(prefix: str, sizes: ExpertLinearSizes, targets: Sequence[str]) -> LoraModule | None:
    """The LoRA of all experts' linear under PEFT's name, or None.

    PEFT wraps the module of experts once for each parameter that has a LoRA: down around gate_up.
    """
    block, name = expert_name(sizes)
    if name not in targets:
        return None
    wrapped = name != DOWN and DOWN in targets
    module = f"{prefix}.{block}experts{'.base_layer' if wrapped else ''}"
    return LoraModule(module, sizes.inputs, sizes.outputs, sizes.experts)
