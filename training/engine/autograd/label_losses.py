"""The cross-entropy at each label of a batch, by any causal model of transformers, with or without PEFT.

Examples are laid end to end where the model's attention keeps them apart by their positions, which is tried
when this is made, and padded where it does not.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from ..loop.batch import PackedBatch
from .rope_border import rope_border


class LabelLosses:
    """A model, and how examples go through it together.

    Args:
        model: of transformers, or of PEFT around it.
        base: the model of transformers.
    """

    row_multiple = 1

    def __init__(self, model: Any, base: Any, device: torch.device) -> None:
        self.model, self.device = model, device
        forward = inspect.signature(base.forward).parameters
        self._keeps_rows = "logits_to_keep" in forward
        self.row_border = rope_border(base.config)
        self.packs = "position_ids" in forward and self._keeps_examples_apart()
        """Whether examples go end to end; else padded."""

    @torch.no_grad()
    def label_losses(self, batch: PackedBatch) -> Tensor:
        """(label_tokens,), without dropout or gradients."""
        self.evaluating()
        return self.differentiable(batch)

    def evaluating(self) -> None:
        """No dropout. bitsandbytes must not repack its weights for inference: then none can be trained."""
        self.model.eval()
        for module in self.model.modules():
            if type(module).__name__ == "Linear4bit":
                module.training = True

    def differentiable(self, batch: PackedBatch) -> Tensor:
        """(label_tokens,), of the model in the mode that it is in."""
        logits = self._packed_logits(batch) if self.packs else self._padded_logits(batch)
        return F.cross_entropy(logits.float(), batch.targets, reduction="none")  # (label_tokens,)

    def _packed_logits(self, batch: PackedBatch) -> Tensor:
        """(label_tokens, vocab_size), of all examples end to end in one row."""
        kept = {"logits_to_keep": batch.label_positions} if self._keeps_rows else {}
        logits = self.model(
            input_ids=batch.input_ids[None], position_ids=batch.position_ids[None], use_cache=False, **kept
        ).logits[0]
        return logits if kept else logits[batch.label_positions]

    def _padded_logits(self, batch: PackedBatch) -> Tensor:
        """(label_tokens, vocab_size), of one row per example, filled up on the right."""
        lengths = torch.tensor(batch.segments.lengths, device=batch.input_ids.device)
        rows = list(torch.split(batch.input_ids, list(batch.segments.lengths)))
        input_ids = pad_sequence(rows, batch_first=True)  # (examples, longest)
        columns = torch.arange(input_ids.shape[1], device=lengths.device)
        mask = columns < lengths[:, None]  # (examples, longest)
        example = batch.example_of_label  # (label_tokens,)
        column = batch.label_positions - batch.segments.cu_seqlens[example]
        kept: dict[str, Tensor] = {}
        if self._keeps_rows:
            wanted = torch.unique(column)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
            column = torch.searchsorted(wanted, column)  # pyright: ignore[reportUnknownArgumentType]
            kept = {"logits_to_keep": wanted}
        out = self.model(input_ids=input_ids, attention_mask=mask.long(), use_cache=False, **kept)
        return out.logits[example, column]

    @torch.no_grad()
    def _keeps_examples_apart(self) -> bool:
        """Whether two examples end to end get the logits that each gets alone.

        Measured against what the second one's logits change if the positions run on, that is, if the two are
        one example.
        """
        self.evaluating()
        size = min(self.model.config.get_text_config().vocab_size, 1000)
        generator = torch.Generator().manual_seed(0)
        ids = torch.randint(size // 2, size, (1, 16), generator=generator).to(self.device)
        alone = self._logits(ids[:, 8:], torch.arange(8))
        apart = self._logits(ids, torch.arange(8).repeat(2))[8:]
        joined = self._logits(ids, torch.arange(16))[8:]
        return bool((apart - alone).square().mean() <= 0.05**2 * (joined - alone).square().mean())

    def _logits(self, ids: Tensor, positions: Tensor) -> Tensor:
        positions = positions[None].to(self.device)
        return self.model(input_ids=ids, position_ids=positions, use_cache=False).logits[0].float()
