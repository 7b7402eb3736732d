"""Models that padding changes: a state that runs through it, or keys that are chosen among too many."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

PADDING, LENGTH = 8, 2
"""Tokens of the padding that is tried, and of the row after it: within reach of a short convolution."""
ALIKE = {torch.float32: 1e-3}
"""Logits that differ by less, as a share of how far they lie apart, differ by rounding."""
ALIKE_IN_16_BITS = 0.05


def selected_keys(config: Any) -> int | None:
    """How many keys a query attends to, of a model that chooses them by a score of its own; None: all.

    Examples beside each other, and padding, would change the choice. Where there are fewer, all are chosen.

    Args:
        config: of a transformers model.
    """
    text = config.get_text_config()
    return getattr(text, "index_topk", None) or getattr(text, "indexer_budget", None)


@torch.no_grad()
def padding_is_unseen(model: Any) -> bool:
    """Whether a row that is filled up on the left gets the next token that it gets alone.

    Args:
        model: of transformers, which may be PEFT's.
    """
    if selected_keys(model.config) is not None:
        return False
    size = min(model.config.get_text_config().vocab_size, 1000)
    shape = 2, PADDING + LENGTH
    ids = torch.randint(size // 2, size, shape, generator=torch.Generator().manual_seed(0)).to(model.device)
    mask = torch.ones_like(ids)
    mask[1, :PADDING] = 0
    try:
        beside = _next_logits(model, ids * mask, mask)
    except (RuntimeError, ValueError):  # some recurrent models have no batches of this form
        return False
    alone = _next_logits(model, ids[1:, PADDING:], mask[1:, PADDING:])
    alike = ALIKE.get(model.dtype, ALIKE_IN_16_BITS)
    return bool((beside - alone).square().mean().sqrt() <= alike * alone.std())


def _next_logits(model: Any, input_ids: Tensor, mask: Tensor) -> Tensor:
    """Of the last row's next token, (vocab_size,)."""
    from transformers import GenerationConfig

    config = GenerationConfig(
        max_new_tokens=1, do_sample=False, output_logits=True, return_dict_in_generate=True, pad_token_id=0
    )
    made = model.generate(input_ids=input_ids, attention_mask=mask, generation_config=config)
    return made.logits[0][-1].float()
