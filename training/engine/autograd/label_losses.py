"""The cross-entropy at each label of a batch, by any causal model of transformers, with or without PEFT.

Examples are laid end to end where the model's attention keeps them apart by their positions, which is tried
when this is made, and padded where it does not. They go one at a time where padding changes them as well.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from ..loop.batch import PackedBatch
from ..padding import selected_keys
from .rope_border import rope_border

LENGTH = 8
"""Tokens of the examples that try whether a model keeps them apart."""
ROUNDED = {torch.float32: 1e-4, torch.bfloat16: 0.02, torch.float16: 0.005}
"""How far rounding changes logits, by the model's numbers."""
ALIKE = 0.1
"""Logits that differ by less are of the same context; kernels round differently, and 4 bits more so."""


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
        self.dtype: torch.dtype = base.dtype
        self.row_border = rope_border(base.config)
        self._selected = selected_keys(base.config)
        can_pack = "position_ids" in forward and self._selected is None
        self.packs = can_pack and self._keeps_examples_apart()
        """Whether examples go end to end; else padded, or one at a time."""

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
        if self.packs:
            logits = self._packed_logits(batch)
        elif self._selected is not None and max(batch.segments.lengths) > self._selected:
            logits = self._separate_logits(batch)
        else:
            logits = self._padded_logits(batch)
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

    def _separate_logits(self, batch: PackedBatch) -> Tensor:
        """(label_tokens, vocab_size), of one example after the other."""
        rows = torch.split(batch.input_ids, list(batch.segments.lengths))
        example = batch.example_of_label  # (label_tokens,)
        column = batch.label_positions - batch.segments.cu_seqlens[example]
        found = [self._logits(row)[column[example == index]] for index, row in enumerate(rows)]
        return torch.cat(found)

    @torch.no_grad()
    def _keeps_examples_apart(self) -> bool:
        """Whether the second of two examples end to end gets the logits that it gets alone.

        What is masked has weight 0: the logits stay the same to the last bit, but for experts, which compute
        the tokens of both together. Alone, other kernels may compute, and round differently.
        """
        self.evaluating()
        first, other, second = self._random_ids()
        positions = torch.arange(LENGTH).repeat(2)
        after_first = self._logits(torch.cat([first, second]), positions)[LENGTH:]
        after_other = self._logits(torch.cat([other, second]), positions)[LENGTH:]
        if _difference(after_first, after_other) > ROUNDED[self.dtype]:
            return False
        alone = self._logits(second)
        return _difference(after_first, alone) <= ALIKE

    @torch.no_grad()
    def sees_later_tokens(self) -> bool:
        """Whether the logits of most tokens change with the last one: then the model is not causal."""
        self.evaluating()
        ids, other, _ = self._random_ids()
        changed = torch.cat([ids[:-1], other[-1:]])
        before, after = (self._logits(each)[:-1].float() for each in (ids, changed))
        differences = (before - after).abs().amax(-1) / before.std(-1)  # (LENGTH - 1,)
        return float(differences.median()) > 5 * ROUNDED[self.dtype]

    def _random_ids(self) -> tuple[Tensor, ...]:
        """Three examples of `LENGTH` tokens."""
        size = min(self.model.config.get_text_config().vocab_size, 1000)
        generator = torch.Generator().manual_seed(0)
        return torch.randint(size // 2, size, (3, LENGTH), generator=generator).to(self.device).unbind()

    def _logits(self, ids: Tensor, positions: Tensor | None = None) -> Tensor:
        given = {} if positions is None else {"position_ids": positions[None].to(self.device)}
        return self.model(input_ids=ids[None], use_cache=False, **given).logits[0]


def _difference(some: Tensor, other: Tensor) -> float:
    """The root of the mean square, as a share of how far the logits of a token lie apart."""
    some, other = some.float(), other.float()
    return float((some - other).square().mean().sqrt() / some.std(-1).max())
