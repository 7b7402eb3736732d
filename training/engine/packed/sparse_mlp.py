"""An MLP with experts: each token goes to the few that a router chooses, and through a shared MLP, if any.

    update = Σ_e w_e · down_e(activation(gate_e) · up_e) + gate · shared(x)

Tokens are sorted by expert, so that an expert's rows lie together. A row is weighed before `down`, whose
input is narrower than its output; what comes out is then only summed up. Rows are tokens · chosen experts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .expert_linear import ExpertLinear
from .fused_ops import fused_on_cuda
from .gated_activations import GatedActivation
from .lora_linear import LoraLinear
from .mlp import DenseMlp, MlpMasks, SavedMlp, WriteGradients
from .router import Routed, Router


class SavedExperts(NamedTuple):
    logits: Tensor  # (tokens, experts)
    routed: Routed
    gate_up: Tensor | None  # (rows, 2 · width); None is computed again
    gate_up_lora_hidden: Tensor  # (rows, R)
    down_lora_hidden: Tensor  # (rows, R)
    shared: SavedMlp | None
    shared_update: Tensor | None  # (tokens, hidden_size), where it is gated


@fused_on_cuda
def weighed(activation: Tensor, weights: Tensor) -> Tensor:
    """Rows times their weight."""
    return (activation.float() * weights.float()[:, None]).to(activation.dtype)


@fused_on_cuda
def d_weights(d_weighed: Tensor, activation: Tensor) -> Tensor:
    """The gradient of each row's weight, (rows,) fp32."""
    return (d_weighed.float() * activation.float()).sum(-1)


@dataclass
class SparseMlp:
    """Args:
    shared_gate: (1, hidden_size), where the shared MLP's output has a gate.
    """

    router: Router
    gate_up: ExpertLinear  # hidden_size → 2 · width
    down: ExpertLinear  # width → hidden_size
    activation: GatedActivation
    shared: DenseMlp | None
    shared_gate: Tensor | None

    def linears(self) -> tuple[LoraLinear, ...]:
        return () if self.shared is None else self.shared.linears()

    def experts(self) -> tuple[ExpertLinear, ExpertLinear]:
        return self.gate_up, self.down

    def forward(
        self, x: Tensor, masks: MlpMasks, routed_by: Tensor | None = None
    ) -> tuple[Tensor, SavedExperts]:
        """Args:
        routed_by: what the router reads, (tokens, hidden_size); None is x.
        """
        logits = self.router.logits(x if routed_by is None else routed_by)
        routed = self.router.route(logits)
        gate_up, gate_up_lora_hidden = self._gate_up(x, routed)
        rows, down_lora_hidden = self.down.forward(
            weighed(self.activation.forward(gate_up), routed.weights), routed
        )
        if self.down.bias is not None:
            rows.add_(weighed(self.down.bias[routed.experts], routed.weights))
        update = routed.gathered(rows)  # (tokens, hidden_size)
        saved = SavedExperts(logits, routed, gate_up, gate_up_lora_hidden, down_lora_hidden, None, None)
        if self.shared is None:
            return update, saved
        shared, kept = self.shared.forward(x, masks)
        if self.shared_gate is None:
            return update.add_(shared), saved._replace(shared=kept)
        gated = self._open(x, self.shared_gate) * shared
        return update.add_(gated), saved._replace(shared=kept, shared_update=shared)

    def lighter(self, saved: SavedExperts) -> SavedExperts:
        shared = self.shared and saved.shared and self.shared.lighter(saved.shared)
        return saved._replace(gate_up=None, shared=shared)

    def backward(
        self, d_update: Tensor, saved: SavedExperts, read: Callable[[], Tensor], masks: MlpMasks
    ) -> tuple[Tensor, WriteGradients]:
        dx, d_routed_by, write = self.backward_apart(d_update, saved, read, masks)
        return dx.add_(d_routed_by), write

    def backward_apart(
        self, d_update: Tensor, saved: SavedExperts, read: Callable[[], Tensor], masks: MlpMasks
    ) -> tuple[Tensor, Tensor, WriteGradients]:
        """As `backward`, with the gradient of what the router reads apart from that of x."""
        routed = saved.routed
        d_rows = routed.spread(d_update)  # (rows, hidden_size)
        d_weighed, d_down_hidden = self.down.backward(d_rows, routed)  # (rows, width), (rows, R)
        gate_up = saved.gate_up
        if gate_up is None:
            gate_up, _ = self._gate_up(read(), routed)
        activation, d_gate_up = self.activation.backward(weighed(d_weighed, routed.weights), gate_up)
        d_weight = d_weights(d_weighed, activation)
        if self.down.bias is not None:
            d_weight += d_weights(d_rows, self.down.bias[routed.experts])
        del gate_up, d_weighed
        self.down.gradients(
            d_rows, d_down_hidden, weighed(activation, routed.weights), saved.down_lora_hidden, routed
        )
        del activation, d_rows
        dx_rows, d_hidden = self.gate_up.backward(d_gate_up, routed)  # (rows, hidden_size), (rows, R)
        dx = routed.gathered(dx_rows)
        del dx_rows
        d_routed_by = self.router.backward(d_weight, saved.logits, routed)
        dx_shared, write_shared = self._shared_backward(d_update, saved, read, masks)
        if dx_shared is not None:
            dx += dx_shared

        def write(x: Tensor) -> None:
            if self.gate_up.group:
                spread = routed.spread(x)
                self.gate_up.gradients(d_gate_up, d_hidden, spread, saved.gate_up_lora_hidden, routed)
            write_shared(x)

        return dx, d_routed_by, write

    def _gate_up(self, x: Tensor, routed: Routed) -> tuple[Tensor, Tensor]:
        gate_up, lora_hidden = self.gate_up.forward(routed.spread(x), routed)
        if self.gate_up.bias is not None:
            gate_up.add_(self.gate_up.bias[routed.experts])
        return gate_up, lora_hidden

    def _shared_backward(
        self, d_update: Tensor, saved: SavedExperts, read: Callable[[], Tensor], masks: MlpMasks
    ) -> tuple[Tensor | None, WriteGradients]:
        if self.shared is None or saved.shared is None:
            return None, lambda x: None
        if self.shared_gate is None:
            return self.shared.backward(d_update, saved.shared, read, masks)
        assert saved.shared_update is not None
        opened = self._open(read(), self.shared_gate)  # (tokens, 1)
        d_opened = (d_update * saved.shared_update).sum(-1, keepdim=True)
        dx, write = self.shared.backward(opened * d_update, saved.shared, read, masks)
        return dx + (d_opened * opened * (1 - opened)) @ self.shared_gate, write

    @staticmethod
    def _open(x: Tensor, gate: Tensor) -> Tensor:
        """How far the gate lets the shared output through, (tokens, 1)."""
        return torch.sigmoid(x @ gate.t())
