"""Which experts a token goes to, and with which weights, as transformers' routers choose.

    softmax              the largest of softmax(logits), divided by their sum if the config says so
    softmax of chosen    softmax over the largest logits
    sigmoid in groups    sigmoid(logits); chosen with a correction added, in the groups with the best two
                         (DeepSeek-V3, arXiv:2412.19437), divided by their sum and scaled

The auxiliary loss that balances experts in pretraining is not computed: routers are frozen. But logits depend
on the hidden state, so the weights' gradient goes through them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ...models.expert_layers import ExpertSizes


class Routed(NamedTuple):
    """The tokens of a batch, each `chosen` times, sorted by expert: rows = tokens · chosen."""

    weights: Tensor  # (rows,)
    tokens: Tensor  # (rows,), the token of each row
    experts: Tensor  # (rows,), the expert of each row
    places: Tensor  # (tokens, chosen), the row of each choice
    ends: Tensor  # (experts,) int32, the row after an expert's last one

    def spread(self, x: Tensor) -> Tensor:
        """Each row's token: (tokens, width) → (rows, width)."""
        return x[self.tokens]

    def gathered(self, rows: Tensor) -> Tensor:
        """The sum of each token's rows: (rows, width) → (tokens, width); in the same order every time."""
        return rows[self.places].sum(1)


@dataclass
class Router:
    """The frozen router of a layer.

    Args:
        weight: (experts, hidden_size).
        bias: (experts,), of the logits.
        correction: (experts,) fp32, with which experts are chosen but not weighed.
        scale: (experts,), factors on the weights of experts.
    """

    sizes: ExpertSizes
    weight: Tensor
    bias: Tensor | None
    correction: Tensor | None
    scale: Tensor | None = None

    def logits(self, x: Tensor) -> Tensor:
        """(tokens, experts)."""
        if self.sizes.family.routing == "sigmoid in groups":
            return F.linear(x.float(), self.weight.float())
        return F.linear(x, self.weight, self.bias)

    def route(self, logits: Tensor) -> Routed:
        weights, chosen = self._weighed(logits)
        experts, order = chosen.reshape(-1).sort(stable=True)
        places = torch.empty_like(order)
        places[order] = torch.arange(len(order), device=order.device)
        every = torch.arange(self.sizes.count, device=experts.device)
        ends = torch.searchsorted(experts, every, right=True, out_int32=True)
        return Routed(
            weights.reshape(-1)[order], order // self.sizes.chosen, experts, places.view(chosen.shape), ends
        )

    def backward(self, d_weights: Tensor, logits: Tensor, routed: Routed) -> Tensor:
        """The gradient of the router's input, (tokens, hidden_size); d_weights is (rows,)."""
        with torch.enable_grad():
            leaf = logits.detach().requires_grad_()
            weights, _ = self._weighed(leaf)
        (d_logits,) = torch.autograd.grad(weights, leaf, d_weights[routed.places].to(weights.dtype))
        if self.sizes.family.routing == "sigmoid in groups":
            return (d_logits @ self.weight.float()).to(self.weight.dtype)
        return d_logits @ self.weight

    def _weighed(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Weights and numbers of each token's experts, each (tokens, chosen)."""
        sizes = self.sizes
        match sizes.family.routing:
            case "softmax":
                weights, chosen = logits.float().softmax(-1).topk(sizes.chosen, -1)
                if sizes.normalised:
                    weights = weights / weights.sum(-1, keepdim=True)
                if self.scale is not None:
                    weights = weights * self.scale[chosen].float()
                return (weights.to(logits.dtype) if sizes.family.rounded else weights), chosen
            case "softmax of chosen":
                largest, chosen = logits.topk(sizes.chosen, -1)
                return largest.softmax(-1), chosen
            case "sigmoid in groups":
                scores = logits.sigmoid()
                chosen = self._chosen_in_groups(scores.detach())
                weights = scores.gather(1, chosen)
                if sizes.normalised:
                    weights = weights / (weights.sum(-1, keepdim=True) + 1e-20)
                return weights * sizes.scale, chosen

    def _chosen_in_groups(self, scores: Tensor) -> Tensor:
        sizes = self.sizes
        assert self.correction is not None
        corrected = scores + self.correction
        groups = corrected.view(len(scores), sizes.groups, -1)
        best = groups.topk(2, -1)[0].sum(-1).topk(sizes.chosen_groups, -1, sorted=False)[1]
        open_groups = torch.zeros(groups.shape[:2], dtype=torch.bool, device=scores.device)
        open_groups.scatter_(1, best, True)
        closed = ~open_groups[:, :, None].expand_as(groups).reshape(scores.shape)
        return corrected.masked_fill(closed, -torch.inf).topk(sizes.chosen, -1, sorted=False)[1]
