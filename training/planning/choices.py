"""Every default and "auto" of a spec, resolved for one model, one dataset and one device, with reasons.

The plan that is shown and the plan that is carried out come from here; the second one knows exact lengths.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from ..config.fields import EngineName, Recompute
from ..config.specs import TrainingSpec
from .batches import FILL, RunBatches
from .data_facts import DataFacts
from .decoder_shape import DecoderShape
from .engine_choice import engine_of
from .fp8_base import require_fp8
from .gpu_cards import card_named
from .graphs import ROW_MULTIPLE
from .hyperparameters import EPOCHS, choose_epochs, choose_learning_rate, hidden_size
from .machine import Machine
from .memory import TrainingMemory
from .memory_choice import MemoryChoice, choose_memory, on_cpu, training_memory
from .speed import Work, tokens_per_s

STEP_EXAMPLES = {"cpu": 4, "cuda": 8}
FEW = 4
"""Examples of a step for each GPU."""
PADDED: tuple[EngineName, ...] = ("trl", "unsloth")
"""Engines that fill examples up to the longest of their batch."""


@dataclass(frozen=True)
class Choices:
    """A spec without an "auto".

    Args:
        steps: optimizer steps of the run; None: they depend on a dataset that is not known.
        memory: what lies on the device.
        parts: the memory of a training with this engine.
    """

    engine: EngineName
    why_engine: str
    batch_size: int
    accumulation: int
    epochs: float
    steps: int | None
    learning_rate: float
    memory: MemoryChoice
    parts: TrainingMemory
    batches: RunBatches
    reasons: dict[str, str]


def choose(
    spec: TrainingSpec,
    config: Mapping[str, Any],
    shape: DecoderShape,
    machine: Machine,
    data: DataFacts,
    *,
    layer: int | None = None,
) -> Choices:
    """All choices, and why each was made.

    Args:
        config: the content of config.json.
        layer: stored bytes of the largest layer, where a checkpoint in 4 bits tells them.

    Raises:
        InputError, GpuNotAvailableError: the base cannot be in FP8, which was asked for.
    """
    require_fp8(spec, config, shape, machine)
    engine, why = engine_of(spec, config)
    in_4bit = spec.model.load_in_4bit
    parts = training_memory(
        shape,
        spec.lora,
        engine,
        in_4bit=in_4bit,
        layer=layer,
        on_gpu=machine.on_gpu,
        shards=machine.here,
    )
    card = card_named(machine.name) if machine.on_gpu else None
    batch_size, accumulation, why_batch = _batch_size(spec, machine)
    per_epoch = None if data.examples is None else math.ceil(data.examples / (batch_size * accumulation))
    epochs, why_epochs = _epochs(spec, per_epoch)
    steps = spec.training.steps or (None if per_epoch is None else max(1, math.ceil(epochs * per_epoch)))

    def fitted(batch_size: int, accumulation: int) -> tuple[RunBatches, MemoryChoice]:
        at_once = 1 if engine in PADDED else accumulation
        times = None if steps is None else steps * accumulation // at_once
        batches = _batches(spec, data, batch_size * at_once, times, engine, parts, machine)
        if not machine.on_gpu:
            return batches, on_cpu(spec, parts, batches, free=machine.free_bytes)
        examples = batch_size * accumulation
        work = partial(_work, spec, shape, engine, parts, batches, examples, machine.processes)

        def speed(recompute: Recompute, tokens: int, resident: int | None) -> float:
            return tokens_per_s(work(recompute, tokens, resident), card)

        free, known = machine.free_gpu_bytes, None if card is None else speed
        made = choose_memory(
            spec, parts, batches, free=free, host=machine.free_bytes, held=machine.held, speed=known
        )
        return batches, made

    batches, memory = fitted(batch_size, accumulation)
    smaller = batch_size
    while engine in PADDED and spec.training.batch_size == "auto" and not memory.fits and smaller > 1:
        smaller, accumulation = smaller // 2, accumulation * 2
        batches, memory = fitted(smaller, accumulation)
    if smaller != batch_size:
        why_batch = f"{batch_size} examples a step do not fit at once: {smaller}, {accumulation} times"
        batch_size = smaller
    rate, why_rate = _learning_rate(spec, config, steps)
    reasons = {"engine": why, "batch_size": why_batch, **memory.reasons}
    reasons |= {"epochs": why_epochs, "learning_rate": why_rate}
    if machine.processes > 1:
        reasons["gpus"] = _shared(batch_size * accumulation, machine)
    if data.examples is not None:
        reasons["held_out"] = f"{data.held_out} examples: {_held_out_rule(spec)}"
    reasons["precision"] = "bf16 on a GPU" if machine.on_gpu else "fp32 is faster than bf16 on a CPU"
    if spec.training.in_fp8:
        reasons["base_precision"] = "as asked: products with frozen weights in FP8, the LoRA in bf16"
    return Choices(
        engine, why, batch_size, accumulation, epochs, steps, rate, memory, parts, batches, reasons
    )


def _shared(examples: int, machine: Machine) -> str:
    """How a step is shared; a GPU with few examples is not busy."""
    shared = f"{machine.together} share the {examples} examples of each step"
    if examples >= FEW * machine.processes:
        return shared
    return f"{shared}: a larger batch_size would keep them busier"


def work_of(spec: TrainingSpec, shape: DecoderShape, made: Choices, processes: int = 1) -> Work:
    """What decides how long a micro-batch of one of the processes takes."""
    memory, examples = made.memory, made.batch_size * made.accumulation
    way = memory.recompute, memory.micro_batch_tokens, memory.resident_layers
    return _work(spec, shape, made.engine, made.parts, made.batches, examples, processes, *way)


def _work(
    spec: TrainingSpec,
    shape: DecoderShape,
    engine: EngineName,
    parts: TrainingMemory,
    batches: RunBatches,
    examples: int,
    processes: int,
    recompute: Recompute,
    micro_batch_tokens: int,
    resident: int | None,
) -> Work:
    """Of steps of so many examples, which go through the model in this way."""
    tokens = float(batches.largest(micro_batch_tokens).tokens)
    if batches.mean is not None:
        of_process = batches.mean * examples / processes
        count = max(1.0, batches.micro_batches(micro_batch_tokens) / processes)
        tokens = min(of_process / count, tokens)
    return Work(
        shape=shape,
        engine=engine,
        in_4bit=spec.model.load_in_4bit or shape.stored_4bit,
        in_fp8=spec.training.in_fp8,
        recompute=recompute,
        resident=resident,
        tokens=tokens,
        seen=batches.seen_before,
        labels=batches.trained_share,
        stored=parts.layer,
        sharded=parts.shards > 1 and resident is not None,
        graphed=parts.graph > 0,
    )


def in_4bit(spec: TrainingSpec) -> TrainingSpec:
    """The same training with its weights in 4 bits."""
    return spec.model_copy(update={"model": spec.model.model_copy(update={"load_in_4bit": True})})


def _batches(
    spec: TrainingSpec,
    data: DataFacts,
    examples: int,
    steps: int | None,
    engine: EngineName,
    parts: TrainingMemory,
    machine: Machine,
) -> RunBatches:
    on_card = ROW_MULTIPLE if parts.graph else FILL
    return RunBatches(
        data.lengths,
        examples=examples,
        seed=spec.training.seed,
        shuffle=spec.data.order == "shuffled",
        held_out=data.held_out,
        trained_share=data.trained_share,
        padded=engine in PADDED,
        steps=steps,
        processes=machine.processes,
        multiple=on_card if machine.on_gpu and parts.exact else 1,
    )


def _batch_size(spec: TrainingSpec, machine: Machine) -> tuple[int, int, str]:
    asked, accumulation = spec.training.batch_size, spec.training.gradient_accumulation_steps
    if isinstance(asked, int):
        return asked, accumulation, "as asked"
    return STEP_EXAMPLES[machine.device], accumulation, f"the usual on a {machine.device}"


def _epochs(spec: TrainingSpec, steps_per_epoch: int | None) -> tuple[float, str]:
    asked = spec.training.epochs
    if spec.training.steps is not None:
        return float(EPOCHS) if asked == "auto" else asked, "not used: steps are given"
    if asked != "auto":
        return asked, "as asked"
    if steps_per_epoch is None:
        return float(EPOCHS), f"{EPOCHS} or more, by the number of rows"
    return choose_epochs(max(1, steps_per_epoch))


def _held_out_rule(spec: TrainingSpec) -> str:
    if spec.data.validation is not None:
        return "those of the validation dataset"
    return "5% of the rows, 8 to 500, from 20 rows on" if spec.data.held_out == "auto" else "as asked"


def _learning_rate(spec: TrainingSpec, config: Mapping[str, Any], steps: int | None) -> tuple[float, str]:
    asked, factor = spec.training.learning_rate, spec.training.learning_rate_multiplier
    rate, why = (asked, "as asked") if asked != "auto" else _usual_learning_rate(config, steps)
    return (rate, why) if factor == 1 else (rate * factor, f"{factor:g} times {rate:g}, {why}")


def _usual_learning_rate(config: Mapping[str, Any], steps: int | None) -> tuple[float, str]:
    rate, why = choose_learning_rate(hidden_size(config), steps or 0)
    return rate, why if steps else "by the hidden size; a long run gets less"
