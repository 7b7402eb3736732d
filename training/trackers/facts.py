"""What an experiment tracker is told of a run at its start.

Only names and numbers: no text of a dataset, no question, no path beyond the last name of a file or folder.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from ..config.arguments import flat_name
from ..config.specs import DataGroup, LoraGroup, MultiRunSpec, TrainingGroup, TrainingSpec
from ..files.paths import looks_like_path
from ..redact import scrub
from ..runs.folder import RunFolder
from ..untrusted import short_name
from ..version import __version__

PROJECT = "backpropagate"
"""Project or experiment, unless the tracker's own variable names another."""

OF_DATA = ("samples", "max_seq_length", "train_on", "on_bad_rows", "dedupe", "quality", "order", "held_out")
OF_EVALUATION = ("eval_every", "patience")
OF_PLAN = ("precision", "load_in_4bit")

Plain = str | int | float | bool


@dataclass(frozen=True)
class Facts:
    """A run as a tracker knows it.

    Args:
        name: of the run, `backprop-<run id>`.
        home: where local trackers write, unless their own variables say otherwise.
        settings: flat, with the plan's choices instead of "auto".
    """

    run_id: str
    name: str
    home: Path
    settings: dict[str, Plain]

    @classmethod
    def of(cls, run: RunFolder) -> Facts:
        """Read spec.json and plan.json."""
        spec = run.spec()
        assert isinstance(spec, TrainingSpec)
        home = run.path.parent.parent
        return cls(run.run_id, tracker_run(run), home, _settings(run, spec, run.plan() or {}))


def tracker_run(run: RunFolder) -> str:
    """The name of a run in every tracker."""
    return f"backprop-{run.run_id}"


def _settings(run: RunFolder, spec: TrainingSpec, plan: dict[str, Any]) -> dict[str, Plain]:
    groups = {
        "data": (OF_DATA, spec.data),
        "lora": (LoraGroup.model_fields, spec.lora),
        "training": (TrainingGroup.model_fields, spec.training),
        "evaluation": (OF_EVALUATION, spec.evaluation),
    }
    decided = {**plan, **{f"lora_{name}": value for name, value in plan.get("lora", {}).items()}}
    found: dict[str, Any] = {
        "run_id": run.run_id,
        "kind": run.state().kind,
        "model": _last_name(spec.model.name),
        "dataset": ", ".join(name for data in spec.datasets for name in _names(data)),
        "backpropagate": __version__,
        "parent": spec.parent,
        **{name: plan.get(name) for name in OF_PLAN},
    }
    for group, (names, values) in groups.items():
        for name in names:
            flat = flat_name(group, name)
            found[flat] = decided.get(flat, getattr(values, name))
    if isinstance(spec, MultiRunSpec):
        found |= spec.multi.model_dump() | {"num_runs": spec.num_runs}
        del found["steps"]  # of a single run
    return {name: _plain(value) for name, value in found.items() if value is not None}


def _names(data: DataGroup) -> list[str]:
    sources = data.source if isinstance(data.source, list) else [data.source or ""]
    return [_last_name(source) for source in sources]


def _last_name(source: str) -> str:
    """The name of a file or folder without its folders; a Hub name as it is."""
    return PurePath(source.replace("\\", "/")).name if looks_like_path(source) else source


def _plain(value: Any) -> Plain:
    if isinstance(value, bool | int | float):
        return value
    return short_name(scrub(", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)))  # pyright: ignore[reportUnknownArgumentType]
