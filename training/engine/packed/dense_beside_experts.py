"""Gemma 4's mixture: an MLP that all tokens go through, and experts beside it, each between norms of its own.

    update = after_dense(dense(before_dense(x))) + after_experts(experts(before_experts(x)))

The router reads x by a norm of its own too, so x is the residual stream as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from .decoder_config import DecoderConfig
from .expert_linear import ExpertLinear
from .lora_linear import LoraLinear
from .mlp import DenseMlp, MlpMasks, SavedMlp, WriteGradients
from .norms import NORMS
from .sparse_mlp import SavedExperts, SparseMlp


class SideNorms(NamedTuple):
    """Weights, each (hidden_size,)."""

    before_dense: Tensor
    after_dense: Tensor
    before_experts: Tensor
    after_experts: Tensor
    before_router: Tensor


SIDE_NORMS = (
    *("pre_feedforward_layernorm.weight", "post_feedforward_layernorm_1.weight"),
    *("pre_feedforward_layernorm_2.weight", "post_feedforward_layernorm_2.weight", "router.scale"),
)
"""Their names in a layer, in the order of `SideNorms`."""


class SavedSides(NamedTuple):
    dense: SavedMlp
    dense_update: Tensor  # (tokens, hidden_size), before its norm
    experts: SavedExperts
    experts_update: Tensor  # likewise


class DenseBesideExperts:
    def __init__(self, dense: DenseMlp, sparse: SparseMlp, norms: SideNorms, config: DecoderConfig) -> None:
        self.dense, self.sparse, self.norms = dense, sparse, norms
        self._norm, self._eps = NORMS[config.family.norm], config.norm_eps
        self._shrink = config.hidden_size**-0.5  # of what the router reads

    def linears(self) -> tuple[LoraLinear, ...]:
        return self.dense.linears()

    def experts(self) -> tuple[ExpertLinear, ExpertLinear]:
        return self.sparse.experts()

    def forward(self, x: Tensor, masks: MlpMasks) -> tuple[Tensor, SavedSides]:
        norms = self.norms
        dense_update, dense = self.dense.forward(self._normed(x, norms.before_dense), masks)
        experts_update, experts = self.sparse.forward(
            self._normed(x, norms.before_experts), masks, self._normed(x, norms.before_router) * self._shrink
        )
        update = self._normed(dense_update, norms.after_dense)
        update = update + self._normed(experts_update, norms.after_experts)
        return update, SavedSides(dense, dense_update, experts, experts_update)

    def lighter(self, saved: SavedSides) -> SavedSides:
        return saved._replace(
            dense=self.dense.lighter(saved.dense), experts=self.sparse.lighter(saved.experts)
        )

    def backward(
        self, d_update: Tensor, saved: SavedSides, read: Callable[[], Tensor], masks: MlpMasks
    ) -> tuple[Tensor, WriteGradients]:
        x, norms = read(), self.norms
        d_dense = self._norm.gradient(d_update, saved.dense_update, norms.after_dense, None, self._eps)
        d_read, write = self.dense.backward(
            d_dense, saved.dense, lambda: self._normed(x, norms.before_dense), masks
        )
        dx, dense_read = self._norm.backward(d_read, x, norms.before_dense, None, self._eps)
        write(dense_read)
        del dense_read, write
        d_experts = self._norm.gradient(d_update, saved.experts_update, norms.after_experts, None, self._eps)
        d_read, d_routed, write = self.sparse.backward_apart(
            d_experts, saved.experts, lambda: self._normed(x, norms.before_experts), masks
        )
        dx, experts_read = self._norm.backward(d_read, x, norms.before_experts, dx, self._eps)
        write(experts_read)
        dx = self._norm.gradient(d_routed * self._shrink, x, norms.before_router, dx, self._eps)
        return dx, lambda x: None

    def _normed(self, x: Tensor, weight: Tensor) -> Tensor:
        return self._norm.forward(x, weight, self._eps)
