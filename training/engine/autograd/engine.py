"""The autograd engine: any Hugging Face causal model with PEFT's LoRA, in our own loop.

Slower than the packed engine, but for every architecture. Its LoRA matrices lie in
the same flat buffer, so optimizer, checkpoints and adapters are the packed engine's. Examples are laid end to
end where the model's attention keeps them apart by their positions, which is tried when the model is loaded,
and padded where it does not.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from ...events import Report, Warned
from ...models.causal import not_causal
from ..load_together import load_together
from ..loaded_model import StepModel
from ..loop.batch import PackedBatch
from ..parallel.ranks import ALONE, Ranks
from ..plan import Plan
from .label_losses import LabelLosses
from .peft_lora import Adapted, load_adapted
from .recurrent_layers import slow_layers


class AutogradStep(LabelLosses):
    """A PEFT model as a step of the loop."""

    name = "autograd"

    def __init__(self, adapted: Adapted, plan: Plan) -> None:
        model, self.lora, self.adapter = adapted
        super().__init__(model, model.get_base_model(), torch.device(plan.device))

    def forward_backward(self, batch: PackedBatch, weight: Tensor, *, seed: int) -> Tensor:
        torch.manual_seed(seed)  # pyright: ignore[reportUnknownMemberType]
        self.model.train()
        loss = self.differentiable(batch).sum() * weight
        loss.backward()  # pyright: ignore[reportUnknownMemberType]
        return loss.detach()

    @torch.no_grad()
    def loss(self, batch: PackedBatch) -> Tensor:
        return self.label_losses(batch).sum()

    def peft_model(self) -> Any:
        self.evaluating()
        return self.model

    def release(self) -> None:
        """Nothing to do: PyTorch's allocator is all that holds memory."""

    def passes(self, count: int, *, backward: bool) -> AbstractContextManager[None]:
        return nullcontext()  # each rank has whole weights

    def refresh(self) -> None:
        """Nothing to do: the model's parameters are views into the flat buffer."""


def load_autograd_step(plan: Plan, _: Ranks = ALONE) -> AutogradStep:
    """The model of `plan` with a new LoRA, or the one that it continues from; whole in each rank.

    Raises:
        ModelLoadError: the model cannot be loaded.
        InputError: the adapter to continue from does not fit, a target module does not exist, or the model
            is not causal.
    """
    step = AutogradStep(load_adapted(plan), plan)
    if step.sees_later_tokens():
        raise not_causal(step.model.config.model_type, "its attention sees later tokens")
    return step


def open_autograd(plan: Plan, report: Report, ranks: Ranks = ALONE) -> StepModel:
    """The loaded model of this engine; raises as `load_autograd_step`."""
    step = load_together(plan, load_autograd_step, ranks)
    slow = slow_layers(step.model.get_base_model(), plan.device, packs=step.packs)
    if slow is not None:
        report(Warned(message=slow))
    return StepModel(step, plan, load_autograd_step, report, ranks)
