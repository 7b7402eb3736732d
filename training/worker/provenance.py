"""The provenance of a run: versions, hardware, data and seed, to reproduce it or explain a difference."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from ..config.specs import TrainSpec
from ..data.prepare import Prepared
from ..engine.plan import Plan
from ..errors import GpuMonitoringError
from ..files.atomic_json import read_json
from ..hardware.reading import read_hardware
from ..version import __version__

LIBRARIES = ("torch", "transformers", "peft", "trl", "datasets", "accelerate", "bitsandbytes", "tokenizers")


def provenance(spec: TrainSpec, plan: Plan, data: Prepared) -> dict[str, Any]:
    """Versions, hardware, data, model and seed of a run, for provenance.json."""
    return {
        "format_version": 1,
        "backpropagate": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "libraries": {name: found for name in LIBRARIES if (found := _version(name))},
        "hardware": _hardware(),
        "dataset": {
            "source": spec.data.source,
            **data.summary.as_dict(),
            # Content hashes of the held-out rows, to compare later runs on the same rows.
            "held_out_rows": sorted(set(data.held_out.hashes())),
        },
        "model": {
            "name": spec.model.name,
            "path": str(plan.model),
            "revision": _revision(plan) or spec.model.revision,
        },
        "seed": plan.training.seed,
    }


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


def _revision(plan: Plan) -> str | None:
    """The commit of a model in the Hub's cache: the name of its snapshot folder."""
    if plan.model.parent.name == "snapshots":
        return plan.model.name
    return read_json(plan.model / "config.json").get("_commit_hash")
