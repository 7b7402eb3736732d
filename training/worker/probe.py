"""Executes a probe: a few real steps of a training at its planned settings, to measure speed and memory.

Steps with the largest micro-batches come first: the peak is theirs, and they are not counted in the speed.
Only the result is kept.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..config.results import ProbeResult
from ..config.specs import ProbeSpec
from ..errors import ModelLoadError, TrainingAbortedError
from ..events import Event, Step
from ..planning.model_facts import model_facts
from ..planning.step_order import micro_batches
from ..untrusted import shown_path
from .context import RunContext, WaitForDevice
from .examples import examples, tokenizer_of

if TYPE_CHECKING:
    from ..data.tokens.example import Example
    from ..engine.plan import Plan

ROWS = 256
"""Rows whose steps are tried."""
WARM_UP, ENOUGH = 2, 12
"""Steps that are not counted, since kernels are compiled in them, and steps that suffice."""
LONGEST_S = 20.0
"""Of the steps. Loading comes before."""


def run(context: RunContext, wait_for_device: WaitForDevice) -> None:
    """Measure, and record the result.

    Raises:
        ModelLoadError: the model is not on this machine: a probe downloads nothing.
    """
    began = time.monotonic()
    spec = context.run.spec()
    assert isinstance(spec, ProbeSpec)
    _require_model(context, spec)
    wait_for_device()
    plan, train, share = _prepared(context, spec)
    result = _measured(context, plan, train)
    seconds = round(time.monotonic() - began, 1)
    update = {"trained_token_share": round(share, 4), "seconds": seconds}
    context.recorder.completed(result.model_copy(update=update))


def _require_model(context: RunContext, spec: ProbeSpec) -> None:
    facts = model_facts(spec.model, context.home / "models", ask_hub=False)
    if facts is None or facts.folder is None:
        raise ModelLoadError(
            f"{shown_path(spec.model.name)} is not on this machine, and a probe downloads nothing.",
            hint="Start the training, which downloads it, or give the folder of the model.",
        )


def _prepared(context: RunContext, spec: ProbeSpec) -> tuple[Plan, list[Example], float]:
    """The plan, the examples with the largest micro-batches first, and the share of tokens with a loss."""
    from ..engine.planner import choose_plan, this_machine

    if spec.training.gpus != 1:
        context.recorder.warn(f"A probe measures one GPU, not {spec.training.gpus}.")
    model = context.model_folder()
    tokenizer, threads = tokenizer_of(context, spec, model)
    few = {"samples": min(spec.data.samples or ROWS, ROWS), "held_out": 0.0, "order": "as_given"}
    probed = spec.model_copy(update={"data": spec.data.model_copy(update=few)})
    data = examples(context, probed, tokenizer, model)
    found: list[Example] = list(data.train)
    lengths = [len(example.input_ids) for example in found]
    plan, reasons = choose_plan(
        probed,
        this_machine(threads),
        examples=len(found),
        held_out=0,
        model=model,
        adapter=context.run.path / ".adapter-of-the-engine",
        base_model_name="",
        continue_from=None,
        lengths=lengths,
        trained_share=data.summary.trained_share or None,
    )
    plan = plan.changed(steps=100_000, checkpoint_every_s=1e9, eval_every=None, patience=None)
    context.run.write_plan({**plan.record(), "reasons": reasons})
    size = plan.batch_size * plan.training.gradient_accumulation_steps
    steps = [found[start : start + size] for start in range(0, len(found), size)]
    steps.sort(key=lambda step: _largest_part(step, plan.micro_batch_tokens), reverse=True)
    return plan, [example for step in steps for example in step], data.summary.trained_share


def _largest_part(step: Sequence[Example], capacity: int) -> int:
    lengths = [len(example.input_ids) for example in step]
    return max(sum(lengths[i] for i in items) for items in micro_batches(lengths, capacity))


def _measured(context: RunContext, plan: Plan, train: Sequence[Example]) -> ProbeResult:
    from ..engine.device import device_name, peak_memory_mib
    from ..engine.loop.checkpoints import Checkpoints
    from ..engine.loop.packing import statistics, step_order
    from ..engine.open_model import open_model
    from ..engine.plan import Data

    context.stop_if_asked()
    context.recorder.phase("loading", "reading the base model's weights")
    model = open_model(plan, context.report)
    order = step_order(plan, [len(example.input_ids) for example in train])
    clock = _Clock(context)
    try:
        outcome = model.train(
            Data(train), clock.report, clock.should_stop, Checkpoints(context.run.checkpoints_path)
        )
    finally:
        shutil.rmtree(context.run.checkpoints_path, ignore_errors=True)
        shutil.rmtree(plan.adapter, ignore_errors=True)
    if context.should_stop():
        raise TrainingAbortedError("Cancelled before the probe had measured anything.")
    first, last = clock.measured()
    tokens = sum(order.lengths[i] for step in range(first, last) for i in order.examples(step))
    return ProbeResult(
        engine=outcome.engine,
        device=plan.device,
        device_name=device_name(),
        steps=last,
        tokens_per_s=round(tokens / clock.seconds(), 1),
        peak_memory_mib=outcome.peak_memory_mib or peak_memory_mib(),
        planned_peak_mib=plan.planned_peak_mib,
        packing=statistics(order, plan.micro_batch_tokens),
    )


class _Clock:
    """When steps were reported, and when there have been enough of them."""

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self._began = time.monotonic()
        self._steps: list[tuple[int, float]] = []

    def report(self, event: Event) -> None:
        self._context.report(event)
        if isinstance(event, Step):
            now = time.monotonic()
            # Several steps are read from a GPU at once: the last of them tells the time.
            if self._steps and now - self._steps[-1][1] < 1e-3:
                self._steps.pop()
            self._steps.append((event.step, now))

    def should_stop(self) -> bool:
        late = time.monotonic() - self._began > LONGEST_S and len(self._steps) > 1
        return self._context.should_stop() or late or self._counted() >= ENOUGH

    def measured(self) -> tuple[int, int]:
        """The steps that count: after the first number, up to the second."""
        first, last = self._ends()
        return first[0], last[0]

    def seconds(self) -> float:
        first, last = self._ends()
        return max(last[1] - first[1], 1e-9)

    def _counted(self) -> int:
        first, last = self._ends()
        return last[0] - first[0] if first[0] >= WARM_UP else 0

    def _ends(self) -> tuple[tuple[int, float], tuple[int, float]]:
        """The end of the warm-up, and that of the last step; without more, all of it."""
        start = (0, self._began)
        if not self._steps:
            return start, start
        last = self._steps[-1]
        warm = [one for one in self._steps if one[0] >= WARM_UP and one[0] < last[0]]
        return (warm or [one for one in self._steps if one[0] < last[0]] or [start])[0], last
