"""Compiles the kernels of a training while its weights are being read.

Reading waits for the disk and compiling for a processor core, so they go on side by side. The kernels are the
run's own because its own code asks for them: a step and an evaluation of the decoder as it is, whose numbers
nobody looks at. One layer of each form is enough for that.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Hashable, Sequence
from contextlib import contextmanager
from copy import copy

import torch

from ...config.fields import Recompute
from ...data.tokens.example import Example
from ...events import Phase, Report
from ...logs import logger
from ...planning.graphs import ROW_MULTIPLE
from ..loop.batch import packed_batch
from ..plan import Plan
from .decoder import PackedDecoder
from .decoder_layer import Layer
from .gpu_kernels import compile_together

MOST_TOKENS = 4096
"""Of the step: as many as usual, since Inductor chooses its kernels by the first size that it sees."""


@contextmanager
def warming_up(decoder: PackedDecoder, plan: Plan, report: Report) -> Generator[None]:
    """Warm the decoder up beside what is done meanwhile, and end when both have ended.

    Nothing is compiled on a CPU. Layers that stream are left out: their slots would keep what they were
    filled with before the weights were there.
    """
    if decoder.device.type != "cuda" or decoder.streams:
        yield
        return
    thread = threading.Thread(target=_warm_up_on_gpu, args=(decoder, plan), daemon=True, name="warm-up")
    thread.start()
    try:
        yield
        if thread.is_alive():
            report(Phase(phase="loading", message="compiling the kernels of the first step"))
    finally:
        thread.join()


def _warm_up_on_gpu(decoder: PackedDecoder, plan: Plan) -> None:
    try:
        with torch.cuda.device(decoder.lora.values.device):
            warm_up(decoder, min(plan.micro_batch_tokens, MOST_TOKENS), plan.training.recompute)
    except Exception:  # the first step meets it again, and the run says so
        logger().exception("warm_up_failed")


@torch.no_grad()
def warm_up(decoder: PackedDecoder, tokens: int, recompute: Recompute) -> None:
    """Run what the decoder's training and evaluation run, with weights that may not be there yet.

    Args:
        tokens: of the batch.
    """
    sample = copy(decoder)
    sample.layers = one_of_each_form(decoder.layers)
    rows = _rows(tokens, decoder.config.hidden_size)
    batch = packed_batch([Example([0] * rows, [0] * rows)]).to(decoder.device)

    def run() -> None:
        sample.label_losses(batch)
        sample.forward_backward(batch, torch.ones((), device=decoder.device), seed=0, recompute=recompute)

    compile_together(run)
    run()
    decoder.lora.gradients.zero_()
    decoder.forget()


def _rows(tokens: int, hidden_size: int) -> int:
    """At least so many; not the hidden size, or norms' weights would be marked as if they were tokens."""
    rows = -(-tokens // ROW_MULTIPLE) * ROW_MULTIPLE
    return rows + ROW_MULTIPLE if rows == hidden_size else rows


def one_of_each_form(layers: Sequence[Layer]) -> list[Layer]:
    """The first layer, whose backward ends there, and of the others one of each form."""
    of_form: dict[Hashable, Layer] = {}
    for layer in layers[1:]:
        of_form.setdefault(_form(layer), layer)
    return [layers[0], *of_form.values()]


def _form(layer: Layer) -> Hashable:
    """What its kernels depend on."""
    sizes = tuple((linear.inputs, linear.outputs, linear.lora_columns) for linear in layer.linears())
    return type(layer.mlp), layer.window, layer.rotation, sizes
