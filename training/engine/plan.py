"""What an engine is given and what it gives back: the plan, the data and the outcome.

    run(plan, data, report, should_stop, checkpoints) -> Outcome

Every engine is called like this and gets the same examples: `input_ids` with `labels` of the same length,
-100 where no loss is taken. A plan has no "auto" left in it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from ..data.tokens.example import Example

Precision = Literal["float32", "bfloat16"]
Recompute = Literal["nothing", "gate_up", "everything"]
Schedule = Literal["constant", "linear", "cosine"]
EngineName = Literal["packed", "autograd", "trl", "unsloth"]
OutcomeStatus = Literal["completed", "cancelled", "early_stopped"]


@dataclass(frozen=True)
class Data:
    """The examples of a run; `held_out` is only ever evaluated."""

    train: Sequence[Example]
    held_out: Sequence[Example] = ()


@dataclass(frozen=True)
class Lora:
    """Low-rank adaptation, y = W·x + scale·B·A·x (Hu et al. 2021, arXiv:2106.09685).

    `target_modules`: "all-linear", "attention" (q, k, v, o), or names such as ("q_proj", "v_proj").
    """

    r: int = 16
    alpha: int = 32
    dropout: float = 0.0
    target_modules: str | tuple[str, ...] = "all-linear"
    rslora: bool = False

    @property
    def scale(self) -> float:
        """alpha / r, or alpha / √r with rank stabilisation (Kalajdzievski 2023, arXiv:2312.03732)."""
        return self.alpha / (math.sqrt(self.r) if self.rslora else self.r)


@dataclass(frozen=True)
class Plan:
    """One run, with every choice made. Lengths and budgets are in tokens, times in seconds."""

    model: Path
    """Folder with config.json and safetensors."""
    adapter: Path
    """Folder for the finished adapter."""
    base_model_name: str = ""
    """What adapter_config.json says was trained; the model folder when empty."""
    reason: str = ""
    """Why this engine, in one sentence; repeated in the outcome."""

    lora: Lora = field(default_factory=Lora)
    load_in_4bit: bool = False
    continue_from: Path | None = None
    """A PEFT adapter to start from instead of a new one."""
    device: str = "cpu"
    precision: Precision = "float32"
    recompute: Recompute = "nothing"

    max_seq_length: int = 2048
    steps: int | None = None
    """Optimizer steps; wins over epochs."""
    epochs: float = 3.0
    batch_size: int = 8
    """Examples per optimizer step, before accumulation."""
    gradient_accumulation_steps: int = 1
    tokens_per_step: int | None = None
    """Fill each step with whole examples up to this many tokens, instead of counting examples."""
    micro_batch_tokens: int = 8192
    """Most tokens that go through the model at once; a longer example goes alone."""

    learning_rate: float = 2e-4
    lr_scheduler: Schedule = "linear"
    warmup_steps: int | None = None
    warmup_ratio: float | None = None
    """Share of all steps to warm up over; wins over warmup_steps."""
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    """Clip the gradient's norm to this; 0 is off."""
    seed: int = 42
    shuffle: bool = True
    """Draw a new order of the examples for each epoch; False keeps the order in which they come."""

    eval_every: int | None = None
    """Steps between evaluations; None evaluates only at the end."""
    patience: int | None = None
    """Stop after this many evaluations without improvement and keep the best adapter; None is off."""
    checkpoint_every_steps: int | None = None
    checkpoint_every_s: float | None = 300.0
    report_every_s: float | None = None
    """Least time between two readings of the device; None reads each step on CPU, twice a second on CUDA."""
    resume: bool = False
    """Go on from the newest good checkpoint, if there is one."""
    engine: EngineName = "packed"
    threads: int | None = None
    """CPU threads; None leaves torch's own choice."""
    tokens_key: str = ""
    """Where the token cache keeps this run's examples."""

    def record(self) -> dict[str, Any]:
        """As plan.json holds it."""
        values = asdict(self)
        for name in ("model", "adapter", "continue_from"):
            values[name] = None if values[name] is None else str(values[name])
        return values

    @classmethod
    def from_record(cls, values: Mapping[str, Any]) -> Plan:
        """The plan that plan.json holds."""
        known = {field.name for field in fields(cls)}
        given: dict[str, Any] = {name: value for name, value in values.items() if name in known}
        for name in ("model", "adapter", "continue_from"):
            given[name] = None if given[name] is None else Path(given[name])
        lora: dict[str, Any] = dict(given["lora"])
        if isinstance(lora["target_modules"], list):
            lora["target_modules"] = tuple(lora["target_modules"])  # pyright: ignore[reportUnknownArgumentType]
        given["lora"] = Lora(**lora)
        return cls(**given)


@dataclass(frozen=True)
class PackingStatistics:
    """How well the examples of the run's first epoch fill its micro-batches."""

    examples: int
    tokens: int
    longest: int
    steps_per_epoch: int
    micro_batches_per_epoch: int
    fill: float
    """Tokens / (micro-batches · micro_batch_tokens)."""
    padding_avoided: float
    """Share of a step's positions that padding to its longest example would have wasted."""


@dataclass(frozen=True)
class Recovery:
    """A step that ran out of memory and was done again in smaller parts."""

    step: int
    micro_batch_tokens: int
    """The budget from this step on."""


@dataclass
class Outcome:
    """How a run ended. Losses are means per label token, in nats."""

    status: OutcomeStatus
    engine: str
    reason: str
    adapter: Path
    steps: int
    total_steps: int
    train_loss: float | None = None
    """Of the last step."""
    eval_loss: float | None = None
    """Of the adapter that was kept."""
    eval_loss_before: float | None = None
    """Of the model as it came; None where it was not measured."""
    best_step: int | None = None
    resumed_from: int | None = None
    tokens: int = 0
    """Trained on in this attempt, padding not counted."""
    seconds: float = 0.0
    tokens_per_s: float = 0.0
    peak_memory_mib: int | None = None
    """Of a process of the engine's own; None where it trained in this one."""
    packing: PackingStatistics | None = None
    recoveries: list[Recovery] = field(default_factory=list[Recovery])
    warnings: list[str] = field(default_factory=list[str])
