"""The packed engine: our own forward and backward for Llama-shaped decoders, in our own loop."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from ...config.fields import Recompute
from ...events import Phase, Report, ShouldStop
from ..loop.batch import PackedBatch
from ..loop.checkpoints import Checkpoints
from ..loop.fit import fit
from ..peft_adapter import AdapterDescription, load_adapter
from ..plan import Data, Outcome, Plan
from .cuda_graphs import ROW_MULTIPLE, GraphedDecoder, graphs_help
from .decoder import PackedDecoder
from .decoder_config import read_decoder_config, targeted_modules
from .load_weights import load_weights


class PackedStep:
    """A packed decoder as a step of the loop."""

    name = "packed"

    def __init__(self, decoder: PackedDecoder, plan: Plan) -> None:
        self.decoder = decoder
        self.device = decoder.device
        self.lora = decoder.lora
        self.recompute: Recompute = plan.training.recompute
        self.adapter = AdapterDescription(
            plan.lora, plan.base_model_name or str(plan.model), targeted_modules(plan.lora)
        )
        self._runs: PackedDecoder | GraphedDecoder = decoder
        self.row_multiple = 64 if self.device.type == "cuda" else 1
        if graphs_help(decoder):
            self._runs, self.row_multiple = GraphedDecoder(decoder), ROW_MULTIPLE

    def forward_backward(self, batch: PackedBatch, weight: Tensor, *, seed: int) -> Tensor:
        return self._runs.forward_backward(batch, weight, seed=seed, recompute=self.recompute)

    def loss(self, batch: PackedBatch) -> Tensor:
        return self.decoder.loss(batch)

    def refresh(self) -> None:
        self.decoder.refresh()


def load_packed_step(plan: Plan) -> PackedStep:
    """The model of `plan` with a new LoRA, or the one that it continues from.

    Raises:
        ModelLoadError: the weights cannot be read.
        InputError: the adapter to continue from does not fit.
    """
    from transformers import AutoConfig

    config = cast("Any", AutoConfig.from_pretrained(plan.model, local_files_only=True))  # pyright: ignore[reportUnknownMemberType]
    dtype = getattr(torch, plan.precision)
    decoder = PackedDecoder(read_decoder_config(config), plan.lora, dtype, torch.device(plan.device))
    load_weights(decoder, plan.model)
    decoder.lora.initialise(plan.training.seed)
    if plan.continue_from is not None:
        load_adapter(plan.continue_from, decoder.lora, plan.lora)
    return PackedStep(decoder, plan)


def run(plan: Plan, data: Data, report: Report, should_stop: ShouldStop, checkpoints: Checkpoints) -> Outcome:
    """Train with the packed step; ask `why_not_packed` first."""
    report(Phase(phase="loading", message=f"loading {plan.model.name}"))
    step = load_packed_step(plan)
    report(Phase(phase="training", message="training"))
    return fit(step, plan, data, report, should_stop, checkpoints)
