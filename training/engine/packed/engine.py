"""The packed engine: our own forward and backward for Llama-shaped decoders, in our own loop."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

from torch import Tensor

from ...config.fields import Recompute
from ...events import Report, Warned, no_report
from ...planning.graphs import ROW_MULTIPLE
from ..load_together import load_together
from ..loaded_model import StepModel
from ..loop.batch import PackedBatch
from ..parallel.ranks import ALONE, Ranks, is_sharded
from ..peft_adapter import AdapterDescription, load_adapter
from ..plan import Plan
from .adapter_targets import adapter_targets
from .cuda_graphs import GraphedDecoder, graphs_help
from .decoder import PackedDecoder
from .gpu_kernels import WITHOUT, has_triton
from .open_decoder import load_decoder
from .peft_view import peft_view
from .warm_up import warming_up


class PackedStep:
    """A packed decoder as a step of the loop."""

    name = "packed"

    def __init__(self, decoder: PackedDecoder, plan: Plan) -> None:
        self.decoder = decoder
        self.device = decoder.device
        self.lora = decoder.lora
        self.recompute: Recompute = plan.training.recompute
        self.adapter = AdapterDescription(
            plan.lora,
            plan.base_model_name or str(plan.model),
            *adapter_targets(decoder, plan.lora),
        )
        self._plan = plan
        self._peft_model: Any = None
        self._runs: PackedDecoder | GraphedDecoder = decoder
        self.row_border: int | None = (
            None  # a model whose rotary scaling depends on the longest example is not packed
        )
        self.row_multiple = 64 if self.device.type == "cuda" else 1
        if graphs_help(decoder):
            self._runs, self.row_multiple = GraphedDecoder(decoder), ROW_MULTIPLE

    def forward_backward(self, batch: PackedBatch, weight: Tensor, *, seed: int) -> Tensor:
        return self._runs.forward_backward(batch, weight, seed=seed, recompute=self.recompute)

    def loss(self, batch: PackedBatch) -> Tensor:
        return self.decoder.loss(batch)

    def label_losses(self, batch: PackedBatch) -> Tensor:
        return self.decoder.label_losses(batch)

    def passes(self, count: int, *, backward: bool) -> AbstractContextManager[None]:
        shards = self.decoder.shards
        return nullcontext() if shards is None else shards.passes.agreed(count, backward=backward)

    def refresh(self) -> None:
        self.decoder.refresh()

    def peft_model(self) -> Any:
        if self._peft_model is None:
            self._peft_model = peft_view(self.decoder, self._plan)
        return self._peft_model

    def release(self) -> None:
        if isinstance(self._runs, GraphedDecoder):
            self._runs = GraphedDecoder(self.decoder)  # the old one's graphs hold their memory


def load_packed_step(plan: Plan, ranks: Ranks = ALONE, *, report: Report = no_report) -> PackedStep:
    """The model of `plan` with a new LoRA, or the one that it continues from.

    Args:
        ranks: that load it together, and shard the weights where whole ones do not fit each.
        report: is told when kernels are still compiled after the weights are there.

    Raises:
        ModelLoadError: the weights cannot be read.
        InputError: the adapter to continue from does not fit.
    """
    decoder = load_decoder(
        plan.model,
        plan.lora,
        plan.precision,
        plan.device,
        in_4bit=plan.load_in_4bit,
        in_fp8=plan.training.in_fp8,
        resident_layers=plan.resident_layers,
        ranks=ranks,
        while_reading=partial(warming_up, plan=plan, report=report),
    )
    decoder.lora.initialise(plan.training.seed)
    if plan.continue_from is not None:
        load_adapter(plan.continue_from, decoder.lora, plan.lora)
    decoder.refresh()
    return PackedStep(decoder, plan)


def open_packed(plan: Plan, report: Report, ranks: Ranks = ALONE) -> StepModel:
    """The loaded model of this engine; raises as `load_packed_step`."""

    def load(plan: Plan, ranks: Ranks) -> PackedStep:
        return _told_of_pinning(load_packed_step(plan, ranks, report=report), report)

    if plan.device == "cuda" and not has_triton():
        report(Warned(message=WITHOUT))

    if plan.training.weights == "sharded" and not is_sharded(plan, ranks):
        report(Warned(message="weights=sharded is not used: the run has one GPU of this host."))
    return StepModel(load_together(plan, load, ranks), plan, load, report, ranks)


def _told_of_pinning(step: PackedStep, report: Report) -> PackedStep:
    if step.decoder.unpinned:
        report(
            Warned(
                message=f"The system does not let the weights of {step.decoder.unpinned} layers be pinned in "
                "host memory: copying them to the GPU slows the training down."
            )
        )
    return step
