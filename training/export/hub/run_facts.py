"""The facts about a training in its run folder, for the model card."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...config.results import TrainResult
from ...config.specs import TrainSpec
from ...data.readers.hub_rows import is_hub_name
from ...errors import InputError
from ...runs.folder import RunFolder


@dataclass(frozen=True)
class RunFacts:
    """spec.json, plan.json, provenance.json and the result of a training."""

    spec: TrainSpec
    plan: dict[str, Any]
    provenance: dict[str, Any]
    result: dict[str, Any]

    @classmethod
    def of(cls, run: RunFolder, result: TrainResult | None = None) -> RunFacts:
        """Read them.

        Args:
            result: of the training, where state.json does not have it yet.

        Raises:
            InputError: the run is no training.
            RunFolderError: a file of the folder cannot be read.
        """
        spec = run.spec()
        if not isinstance(spec, TrainSpec):
            raise InputError(f"Run {run.run_id} is of kind {spec.kind}, not a training.")
        found = result or run.state().result
        told = found.model_dump(mode="json") if found else {}
        return cls(spec, run.plan() or {}, run.provenance() or {}, told)

    @property
    def base(self) -> str:
        """The base model as its users load it: a Hub id, or a folder of this machine."""
        return self.plan.get("base_model_name") or self.spec.model.name

    @property
    def base_folder(self) -> Path | None:
        """The base model's folder at the time of training."""
        return Path(self.plan["model"]) if "model" in self.plan else None

    @property
    def hub_dataset(self) -> str | None:
        """The dataset's name, if it is one of the Hub."""
        source = self.spec.data.source
        return source.partition(":")[0] if isinstance(source, str) and is_hub_name(source) else None
