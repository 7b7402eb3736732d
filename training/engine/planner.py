"""Every default and "auto" of a spec, resolved for one model, one dataset and one device, with reasons."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..config.fields import EngineName, Recompute
from ..config.specs import TrainSpec
from ..hardware.neighbours import held_by_others
from .device import free_gpu_bytes, torch_device
from .hyperparameters import EPOCHS, choose_epochs, choose_learning_rate, hidden_size
from .plan import Plan
from .select_engine import select_engine

GIB = 2**30
STEP_EXAMPLES = {"cpu": 4, "cuda": 8}
MICRO_BATCH_TOKENS = 8192
# Bytes that activations take per token, hidden unit and layer; measured at 7B: 3.0, 0.9 and 0.47 MB a token.
ACTIVATION_BYTES: dict[Recompute, float] = {"nothing": 30.0, "gate_up": 9.0, "everything": 4.7}
RESERVE_BYTES = 3 * GIB  # CUDA's own, the head's chunk, the LoRA and its optimizer


@dataclass(frozen=True)
class Machine:
    """What a plan depends on beside the spec.

    Args:
        free_gpu_bytes: 0 on a CPU.
        threads: CPU threads to use when the spec does not say.
        held: by whom memory of the GPU is held, if it is.
    """

    device: Literal["cpu", "cuda"]
    free_gpu_bytes: int
    threads: int
    held: str = ""

    @classmethod
    def here(cls, threads: int) -> Machine:
        """This machine, with the device that torch sees."""
        free = free_gpu_bytes()
        return cls(torch_device(), free, threads, held_by_others() if free else "")


def choose_plan(
    spec: TrainSpec,
    machine: Machine,
    *,
    examples: int,
    held_out: int,
    model: Path,
    adapter: Path,
    base_model_name: str,
    continue_from: Path | None,
) -> tuple[Plan, dict[str, str]]:
    """The plan, and why each choice was made.

    Args:
        examples, held_out: numbers of training and held-out examples.
        adapter: folder that the engine writes.
        base_model_name: what the adapter says it belongs to.
    """
    engine, why = _engine(spec, model)
    recompute, why_recompute = _recompute(spec, machine, model)
    batch_size, why_batch = _batch_size(spec, machine)
    steps_per_epoch = math.ceil(examples / (batch_size * spec.training.gradient_accumulation_steps))
    epochs, why_epochs = _epochs(spec, steps_per_epoch)
    steps = spec.training.steps or math.ceil(epochs * steps_per_epoch)
    learning_rate, why_rate = _learning_rate(spec, model, steps)
    reasons = {"engine": why, "batch_size": why_batch, "recompute": why_recompute}
    reasons |= {"epochs": why_epochs, "learning_rate": why_rate}
    rule = "5% of the rows, 8 to 500, from 20 rows on" if spec.data.held_out == "auto" else "as asked"
    reasons["held_out"] = f"{held_out} examples: {rule}"
    on_gpu = machine.device == "cuda"
    reasons["precision"] = "bf16 on a GPU" if on_gpu else "fp32 is faster than bf16 on a CPU"
    decided = {
        "engine": engine,
        "recompute": recompute,
        "batch_size": batch_size,
        "epochs": epochs,
        "learning_rate": learning_rate,
        "micro_batch_tokens": _micro_batch_tokens(spec),
        "device": machine.device,
        "threads": spec.training.threads or machine.threads,
    }
    plan = Plan(
        model=model,
        adapter=adapter,
        load_in_4bit=spec.model.load_in_4bit,
        data=spec.data,
        lora=spec.lora,
        training=spec.training.model_copy(update=decided),
        evaluation=spec.evaluation,
        base_model_name=base_model_name,
        reason=why,
        continue_from=continue_from,
        precision="bfloat16" if on_gpu else "float32",
    )
    return plan, reasons


def _engine(spec: TrainSpec, model: Path) -> tuple[EngineName, str]:
    asked = spec.training.engine
    if asked in ("autograd", "trl", "unsloth"):
        return asked, "asked for"
    engine, why = select_engine(
        model, spec.lora, load_in_4bit=spec.model.load_in_4bit, max_seq_length=spec.data.max_seq_length
    )
    wish = "packed was asked for, but: " if asked == "packed" and engine != "packed" else ""
    return engine, f"{wish}{why}"


def _batch_size(spec: TrainSpec, machine: Machine) -> tuple[int, str]:
    asked = spec.training.batch_size
    if isinstance(asked, int):
        return asked, "as asked"
    return STEP_EXAMPLES[machine.device], f"the usual on a {machine.device}"


def _epochs(spec: TrainSpec, steps_per_epoch: int) -> tuple[float, str]:
    asked = spec.training.epochs
    if spec.training.steps is not None:
        return float(EPOCHS) if asked == "auto" else asked, "not used: steps are given"
    return choose_epochs(steps_per_epoch) if asked == "auto" else (asked, "as asked")


def _learning_rate(spec: TrainSpec, model: Path, steps: int) -> tuple[float, str]:
    asked = spec.training.learning_rate
    if asked != "auto":
        return asked, "as asked"
    return choose_learning_rate(hidden_size(_config(model)), steps)


def _micro_batch_tokens(spec: TrainSpec) -> int:
    return spec.training.micro_batch_tokens or MICRO_BATCH_TOKENS


def _recompute(spec: TrainSpec, machine: Machine, model: Path) -> tuple[Recompute, str]:
    """As little as the free memory allows; recomputing costs up to a third of the speed."""
    asked = spec.training.recompute
    if asked != "auto":
        return asked, "as asked"
    if machine.device == "cpu":
        return "nothing", "main memory holds the activations of a CPU's batches"
    left = machine.free_gpu_bytes - _weight_bytes(spec, model) - RESERVE_BYTES
    tokens = _micro_batch_tokens(spec)
    config = _config(model)
    size = tokens * config.get("hidden_size", 4096) * config.get("num_hidden_layers", 32)
    held = f"; {machine.held}" if machine.held else ""
    room = f"{left / GIB:.0f} GiB of GPU memory are left for"
    for mode in ("nothing", "gate_up", "everything"):
        if size * ACTIVATION_BYTES[mode] <= left:
            return mode, f"{room} the activations of {tokens} tokens{held}"
    return "everything", f"only {room} activations{held}"


def _config(model: Path) -> dict[str, Any]:
    return json.loads((model / "config.json").read_text(encoding="utf-8"))


def _weight_bytes(spec: TrainSpec, model: Path) -> float:
    stored = sum(file.stat().st_size for file in model.glob("*.safetensors"))
    return stored * 0.3 if spec.model.load_in_4bit else stored
