"""Cross-entropy at the label positions only, in chunks, with the gradient taken in the forward pass.

The full logits never exist: a chunk of rows goes through the head, becomes its own gradient and goes back
(as Wijmans et al. 2024, arXiv:2411.09009, and Liger, arXiv:2410.10989, do).
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...planning.memory import CPU_LOGITS, CUDA_LOGITS
from .fused_ops import kernel_on_cuda


def chunk_rows(vocab_size: int, device: torch.device) -> int:
    """Rows whose logits are 2^27 (CUDA) or 2^23 (CPU) numbers, at least 16."""
    return max(16, (CUDA_LOGITS if device.type == "cuda" else CPU_LOGITS) // vocab_size)


@kernel_on_cuda("cross_entropy_kernel", "loss_and_gradient")
def _loss_and_gradient(
    logits: Tensor, targets: Tensor, weight: Tensor, cap: float | None
) -> tuple[Tensor, Tensor]:
    """Σ weight·(logsumexp(z) - z_target), and (softmax(z) - onehot)·weight in the logits' dtype.

    With a cap z is cap·tanh(logits / cap), whose derivative is 1 - (z / cap)².
    """
    z = capped(logits.float(), cap)  # (rows, vocab_size)
    logsumexp = torch.logsumexp(z, -1, keepdim=True)
    columns = torch.arange(z.shape[-1], device=z.device)
    hit = columns[None] == targets[:, None]  # (rows, vocab_size)
    loss = (logsumexp[:, 0] - torch.where(hit, z, 0).sum(-1)).sum() * weight
    d_z = (torch.exp(z - logsumexp) - hit.float()) * weight
    if cap is not None:
        d_z = d_z * (1 - (z / cap).pow(2))
    return loss, d_z.to(logits.dtype)


@kernel_on_cuda("cross_entropy_kernel", "losses")
def _losses(logits: Tensor, targets: Tensor, cap: float | None) -> Tensor:
    z = capped(logits.float(), cap)  # (rows, vocab_size)
    return torch.logsumexp(z, -1) - z.gather(-1, targets[:, None])[:, 0]


def loss_and_gradient(
    hidden: Tensor, lm_head: Tensor, targets: Tensor, weight: Tensor, cap: float | None = None
) -> tuple[Tensor, Tensor]:
    """Weighted sum of the cross-entropies, and its gradient.

    Args:
        hidden: (label_tokens, hidden_size), after the final norm.
        lm_head: (vocab_size, hidden_size).
        targets: (label_tokens,).
        weight: scalar tensor on the device, usually 1 / label tokens of the step.
        cap: of the logits, which become cap · tanh(logit / cap).

    Returns:
        The loss, a scalar, and the gradient of `hidden`.
    """
    loss = torch.zeros((), device=hidden.device)
    d_hidden = torch.empty_like(hidden)  # (label_tokens, hidden_size)
    size = chunk_rows(lm_head.shape[0], hidden.device)
    for rows, target, d_rows in zip(
        torch.split(hidden, size), torch.split(targets, size), torch.split(d_hidden, size), strict=True
    ):
        # logits and d_logits: (rows of the chunk, vocab_size)
        logits = rows @ lm_head.t()
        part, d_logits = _loss_and_gradient(logits, target, weight, cap)
        del logits
        loss += part
        torch.mm(d_logits, lm_head, out=d_rows)
    return loss, d_hidden


def label_losses(hidden: Tensor, lm_head: Tensor, targets: Tensor, cap: float | None = None) -> Tensor:
    """The cross-entropy at each label position, (label_tokens,), without a gradient."""
    size = chunk_rows(lm_head.shape[0], hidden.device)
    chunks = zip(torch.split(hidden, size), torch.split(targets, size), strict=True)
    return torch.cat([_losses(rows @ lm_head.t(), target, cap) for rows, target in chunks])


def capped(logits: Tensor, cap: float | None) -> Tensor:
    """cap · tanh(logits / cap), or the logits if there is no cap."""
    return logits if cap is None else cap * torch.tanh(logits / cap)
