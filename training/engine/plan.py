"""The seam between a run and an engine: what to do, what to do it on, what came of it.

An engine is a function `run(plan, examples, report, should_stop) -> Outcome`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from ..config import LoraGroup, TrainSpec
from ..data import Example

ATTENTION_MODULES = ["q_proj", "k_proj", "v_proj", "o_proj"]
GIB = 2**30


@dataclass(frozen=True)
class Plan:
    """Every default and "auto" of a spec, resolved for one model, one dataset and one device."""

    model_path: Path
    device: Literal["cpu", "cuda"]
    dtype: Literal["float32", "bfloat16"]
    load_in_4bit: bool
    gradient_checkpointing: bool
    lora: LoraGroup
    total_steps: int
    batch_size: int  # examples per optimizer step and device, before accumulation
    gradient_accumulation_steps: int
    learning_rate: float
    lr_scheduler: str
    warmup_steps: int
    weight_decay: float
    max_grad_norm: float  # 0: no clipping
    seed: int
    threads: int
    engine: str
    reasons: dict[str, str]

    def record(self) -> dict[str, Any]:
        """As plan.json holds it."""
        return asdict(self) | {"model_path": str(self.model_path), "lora": self.lora.model_dump()}

    @property
    def target_modules(self) -> str | list[str]:
        """The modules that get a LoRA, in PEFT's words."""
        return ATTENTION_MODULES if self.lora.target_modules == "attention" else self.lora.target_modules


@dataclass(frozen=True)
class Outcome:
    """What an engine came to."""

    steps: int
    stopped: bool  # asked to stop before the last step
    first_loss: float | None
    final_loss: float | None
    save_adapter: Callable[[Path], None]  # writes a PEFT adapter into a folder
    model: Any  # a PEFT model that can answer questions


class Report(Protocol):
    """Writes an event: `report("step", step=3, loss=1.2, …)`."""

    def __call__(self, kind: str, **fields: Any) -> None: ...


class Engine(Protocol):
    """Trains an adapter as planned.

    Raises:
        GpuOutOfMemoryError: the batch does not fit into memory.
    """

    def __call__(
        self, plan: Plan, examples: Sequence[Example], report: Report, should_stop: Callable[[], bool]
    ) -> Outcome: ...


def make_plan(
    spec: TrainSpec,
    *,
    model_path: Path,
    examples: int,
    device: Literal["cpu", "cuda"],
    free_gpu_bytes: int,
    threads: int,
) -> Plan:
    """Resolve every default and "auto" of the spec, with reasons.

    Args:
        examples: how many there are.
        free_gpu_bytes: free memory of the GPU; 0 on a CPU.
        threads: CPU threads to use when the spec does not say.
    """
    training = spec.training
    reasons = {"engine": "TRL trains every causal model that transformers loads."}
    if isinstance(training.batch_size, int):
        batch_size, reasons["batch_size"] = training.batch_size, "as asked"
    else:
        batch_size, reasons["batch_size"] = _auto_batch_size(spec, model_path, device, free_gpu_bytes)
    batch_size = min(batch_size, examples)
    per_step = batch_size * training.gradient_accumulation_steps
    if training.steps is not None:
        total_steps, reasons["total_steps"] = training.steps, "as asked"
    else:
        total_steps = max(1, math.ceil(training.epochs * examples / per_step))
        reasons["total_steps"] = f"{training.epochs:g} epochs of {examples} examples, {per_step} a step"
    reasons["dtype"] = "fp32 on a CPU is faster than bf16" if device == "cpu" else "bf16 on a GPU"
    return Plan(
        model_path=model_path,
        device=device,
        dtype="float32" if device == "cpu" else "bfloat16",
        load_in_4bit=spec.model.load_in_4bit,
        gradient_checkpointing=device == "cuda",
        lora=spec.lora,
        total_steps=total_steps,
        batch_size=batch_size,
        gradient_accumulation_steps=training.gradient_accumulation_steps,
        learning_rate=training.learning_rate,
        lr_scheduler=training.lr_scheduler,
        warmup_steps=min(training.warmup_steps, total_steps - 1),
        weight_decay=training.weight_decay,
        max_grad_norm=training.max_grad_norm,
        seed=training.seed,
        threads=training.threads or threads,
        engine="trl",
        reasons=reasons,
    )


def _auto_batch_size(spec: TrainSpec, model_path: Path, device: str, free_gpu_bytes: int) -> tuple[int, str]:
    if device == "cpu":
        return 4, "4 on a CPU, where larger batches are no faster"
    weights = sum(file.stat().st_size for file in model_path.glob("*.safetensors"))
    if spec.model.load_in_4bit:
        weights = weights * 0.3
    left_gib = (free_gpu_bytes - weights) / GIB
    for limit, size in ((4, 1), (10, 2), (24, 4), (60, 8)):
        if left_gib < limit:
            return size, f"{left_gib:.0f} GiB of GPU memory are left beside the weights"
    return 16, f"{left_gib:.0f} GiB of GPU memory are left beside the weights"
