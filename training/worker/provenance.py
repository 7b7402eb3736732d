"""The provenance of a run: versions, hardware, data and seed, to reproduce it or explain a difference."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ..config.specs import TrainSpec
from ..data.prepare import Prepared
from ..engine.plan import Plan
from ..errors import GpuMonitoringError
from ..files.paths import looks_like_path
from ..hardware.reading import read_hardware
from ..models.base_identity import BaseIdentity
from ..version import __version__

LIBRARIES = ("torch", "transformers", "peft", "trl", "datasets", "accelerate", "bitsandbytes", "tokenizers")


def provenance(spec: TrainSpec, plan: Plan, data: Prepared | None, base: BaseIdentity) -> dict[str, Any]:
    """Versions, hardware, data, model and seed of a run, for provenance.json.

    Args:
        data: None for a run that trains on nothing.
    """
    return {
        "format_version": 1,
        "backpropagate": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "libraries": {name: found for name in LIBRARIES if (found := _version(name))},
        "hardware": _hardware(),
        "dataset": dataset_record(spec.data.source, data) if data else {},
        "model": {
            "name": spec.model.name,
            "path": str(plan.model),
            "revision": model_revision(spec, plan.model),
            **base.record(),
        },
        "seed": plan.training.seed,
    }


def dataset_record(source: str | list[str] | None, data: Prepared) -> dict[str, Any]:
    """A dataset, its counts, and the content hashes of its held-out rows, by which later runs find them."""
    held_out = sorted(set(data.held_out.hashes()))
    return {"source": source, **data.summary.as_dict(), "held_out_rows": held_out}


def _hardware() -> dict[str, Any]:
    try:
        return read_hardware().model_dump(mode="json")
    except GpuMonitoringError as error:  # a run does not depend on the GPU's sensors
        return {"error": error.sentence()}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def model_revision(spec: TrainSpec, folder: Path) -> str | None:
    """The commit of a model of the Hub: the name of its folder in the cache. None of other models."""
    if looks_like_path(spec.model.name):
        return None
    return folder.name if folder.parent.name == "snapshots" else spec.model.revision
