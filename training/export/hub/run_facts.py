"""The facts about a training in its run folder, for the model card."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from ...config.results import Record, TrainingResult
from ...config.specs import LoraGroup, TrainingSpec
from ...data.readers.hub_names import is_hub_name
from ...errors import InputError
from ...models.base_identity import WEIGHTS as BASE_WEIGHTS
from ...runs.folder import RunFolder


class PlanFacts(Record):
    """What plan.json says of a training, as far as a card tells it. Names as the settings have them."""

    model: str = ""
    base_model_name: str = ""
    lora: LoraGroup = LoraGroup()
    load_in_4bit: bool = False
    base_precision: str = "auto"
    learning_rate: float
    lr_scheduler: str
    steps: int | None = None
    batch_size: int
    gradient_accumulation_steps: int
    max_seq_length: int
    precision: str
    engine: str
    device: str
    seed: int

    @property
    def reduced_base(self) -> str | None:
        """What a base that has fewer bits than `precision` is held in."""
        return "4 bits (NF4)" if self.load_in_4bit else "FP8" if self.base_precision == "fp8" else None


class ProvenanceFacts(Record):
    """What provenance.json says of a training, as far as a card tells it."""

    backpropagate: str = "?"
    libraries: dict[str, str] = Field(default_factory=dict[str, str])
    content_hash: str | None = None
    """Of the dataset."""
    revision: str | None = None
    """The base model's commit on the Hub."""
    weights_hash: str | None = None
    """Of the base model."""

    @classmethod
    def of(cls, record: dict[str, Any]) -> ProvenanceFacts:
        base = record.get("model", {})
        found = {
            "content_hash": record.get("dataset", {}).get("provenance", {}).get("content_hash"),
            "revision": base.get("revision"),
            "weights_hash": base.get(BASE_WEIGHTS),
        }
        return cls.model_validate({**record, **found})


@dataclass(frozen=True)
class RunFacts:
    """spec.json, plan.json, provenance.json and the result of a training."""

    spec: TrainingSpec
    plan: PlanFacts
    provenance: ProvenanceFacts
    result: TrainingResult

    @classmethod
    def of(cls, run: RunFolder, result: TrainingResult | None = None) -> RunFacts:
        """Read them.

        Args:
            result: of the training, where state.json does not have it yet.

        Raises:
            InputError: the run is no training, or has no plan yet.
            RunFolderError: a file of the folder cannot be read.
        """
        spec, plan = run.spec(), run.plan()
        if not isinstance(spec, TrainingSpec) or plan is None:
            what = f"of kind {spec.kind}" if plan is not None or spec.kind != "train" else "not planned yet"
            raise InputError(f"Run {run.run_id} is {what}: there is no training to describe.")
        found = result or run.state().result
        trained = found if isinstance(found, TrainingResult) else TrainingResult()
        provenance = ProvenanceFacts.of(run.provenance() or {})
        return cls(spec, PlanFacts.model_validate(plan), provenance, trained)

    @property
    def parent(self) -> str | None:
        """The run whose adapter was trained on."""
        return self.spec.parent

    @property
    def base(self) -> str:
        """The base model as its users load it: a Hub id, or a folder of this machine."""
        return self.plan.base_model_name or self.spec.model.name

    @property
    def base_folder(self) -> Path | None:
        """The base model's folder at the time of training."""
        return Path(self.plan.model) if self.plan.model else None

    @property
    def hub_dataset(self) -> str | None:
        """The dataset's name, if it is one of the Hub."""
        source = self.spec.data.source
        return source.partition(":")[0] if isinstance(source, str) and is_hub_name(source) else None
