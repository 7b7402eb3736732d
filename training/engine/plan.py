"""What an engine is given and what it gives back: the plan, the data and the outcome.

    run(plan, data, report, should_stop, checkpoints) -> Outcome

Every engine is called like this and gets the same examples: `input_ids` with `labels` of the same length,
-100 where no loss is taken. A plan has no "auto" left in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

from ..config.results import PackingStatistics, Recovery
from ..config.specs import DataGroup, EvaluationGroup, Group, LoraGroup, ModelGroup, TrainingGroup
from ..data.tokens.example import Example

Precision = Literal["float32", "bfloat16"]
DECIDED_ELSEWHERE = ("weights", "base_precision", "report_to")
"""Settings whose "auto" stays: `resident_layers` says how many weights fit, `precision` what type they have,
the worker has the trackers."""

OutcomeStatus = Literal["completed", "cancelled", "early_stopped"]


@dataclass(frozen=True)
class Data:
    """The examples of a run; `held_out` is only ever evaluated."""

    train: Sequence[Example]
    held_out: Sequence[Example] = ()


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One run, with every choice made: the spec's groups without an "auto", and what no spec holds."""

    model: Path
    """Folder with config.json and safetensors."""
    adapter: Path
    """Folder for the finished adapter."""
    load_in_4bit: bool
    data: DataGroup
    lora: LoraGroup
    training: TrainingGroup
    evaluation: EvaluationGroup

    base_model_name: str = ""
    """What adapter_config.json says was trained; the model folder when empty."""
    reason: str = ""
    """Why this engine, in one sentence; repeated in the outcome."""
    continue_from: Path | None = None
    """A PEFT adapter to start from instead of a new one."""
    precision: Precision = "float32"
    resident_layers: int | None = None
    """Layers whose weights stay on the GPU; the others stream from host memory. None is all of them.

    Where several processes of a host share a training, only None is whole layers: else each has a shard of
    every layer, of so many on the GPU.
    """
    planned_peak_mib: int | None = None
    """What the plan expects to be in use of the device's memory at most."""
    tokens_per_step: int | None = None
    """Fill each step with whole examples up to this many tokens, instead of counting examples."""
    report_every_s: float | None = None
    """Least time between two readings of the device; None reads each step on CPU, twice a second on CUDA."""
    resume: bool = False
    """Continue from the newest good checkpoint, if there is one."""
    tokens_key: str = ""
    """Where the token cache keeps this run's examples."""

    def __post_init__(self) -> None:
        left = [name for name, value in self.training if value == "auto" and name not in DECIDED_ELSEWHERE]
        if self.training.steps is not None and "epochs" in left:
            left.remove("epochs")  # steps override them
        if self.training.gpus == "all":
            left.append("gpus")
        if left or self.training.micro_batch_tokens is None:
            raise ValueError(f"not decided in the plan: {', '.join(left) or 'micro_batch_tokens'}")

    @property
    def batch_size(self) -> int:
        """Examples per optimizer step, before accumulation."""
        return cast("int", self.training.batch_size)

    @property
    def learning_rate(self) -> float:
        """The peak of the schedule."""
        return cast("float", self.training.learning_rate)

    @property
    def epochs(self) -> float:
        """Passes over the data where no number of steps is given."""
        return cast("float", self.training.epochs)

    @property
    def micro_batch_tokens(self) -> int:
        """Most tokens that go through the model at once; a longer example goes alone."""
        return cast("int", self.training.micro_batch_tokens)

    @property
    def gpus(self) -> int:
        """Processes that share each step, one for each GPU."""
        return cast("int", self.training.gpus)

    @property
    def device(self) -> str:
        return self.training.device

    def record(self) -> dict[str, Any]:
        """As plan.json holds it: the settings under their own names, those of the LoRA together."""
        own = {field.name: getattr(self, field.name) for field in fields(self)}
        groups = [own.pop(name).model_dump() for name in ("data", "training", "evaluation")]
        flat: dict[str, Any] = {name: value for group in [*groups, own] for name, value in group.items()}
        flat = {name: str(value) if isinstance(value, Path) else value for name, value in flat.items()}
        return {**flat, "lora": self.lora.model_dump()}

    @classmethod
    def from_record(cls, values: Mapping[str, Any]) -> Plan:
        """The plan that plan.json holds; a setting that it lacks has the spec's default."""
        given = dict(values)
        if given.get("shuffle") is False:  # how older plans say it
            given.setdefault("order", "as_given")
        lora = given.get("lora", {})
        groups: dict[str, Any] = {
            "data": _group(DataGroup, given),
            "training": _group(TrainingGroup, given),
            "evaluation": _group(EvaluationGroup, given),
            "lora": lora if isinstance(lora, LoraGroup) else _group(LoraGroup, lora),
        }
        given.setdefault("load_in_4bit", ModelGroup().load_in_4bit)
        own: dict[str, Any] = {field.name: given[field.name] for field in fields(cls) if field.name in given}
        paths: dict[str, Any] = {
            name: Path(own[name]) for name in ("model", "adapter", "continue_from") if own.get(name)
        }
        return cls(**{**own, **paths, **groups})

    def changed(self, **settings: Any) -> Plan:
        """The same plan with these settings, under the names that `record` gives them."""
        return Plan.from_record({**self.record(), **settings})


G = TypeVar("G", bound=Group)


def _group(kind: type[G], values: Mapping[str, Any]) -> G:
    """The settings of one group among `values`; they were checked when the spec was made."""
    known = {name: values[name] for name in kind.model_fields if name in values}
    return kind().model_copy(update=known)


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
    """The largest of all ranks, or of a process of the engine's own; None if it was not measured."""
    rank_peaks_mib: list[int] = field(default_factory=list[int])
    """Of each rank."""
    packing: PackingStatistics | None = None
    recoveries: list[Recovery] = field(default_factory=list[Recovery])
    warnings: list[str] = field(default_factory=list[str])
