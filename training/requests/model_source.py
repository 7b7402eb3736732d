"""What is to be exported: a run, an adapter folder, or a model. Cheap: no weights are looked at."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config.specs import ModelGroup, TrainSpec
from ..errors import InputError, RunNotFoundError
from ..files.atomic_json import read_json
from ..files.paths import PathPolicy
from ..models.presets import PRESETS, classify_model
from ..runs.store import RunStore

ADAPTER_CONFIG = "adapter_config.json"


@dataclass(frozen=True)
class Subject:
    """What is exported. `adapter` is None for a model that is exported as it is."""

    model: ModelGroup
    adapter: Path | None = None
    run: str | None = None


def export_subject(name: str, store: RunStore, paths: PathPolicy) -> Subject:
    """What a run's id, the path of an adapter or model folder, or a model's name stands for.

    Raises:
        InputError: it is none of these, or the run has no adapter.
        RunNotFoundError: several runs fit.
        PathForbiddenError: the folder may not be read.
    """
    if _is_path(name):
        return _folder(Path(paths.resolve(name, "source")), paths)
    if name.lower() in PRESETS or "/" in name:
        classify_model(name)
        return Subject(ModelGroup(name=name))
    try:
        return _run(store, name)
    except RunNotFoundError as error:
        raise RunNotFoundError(
            error.message,
            hint="Give the id of a run (list_runs shows them), the absolute path of an adapter or model "
            "folder, or a model's name.",
        ) from error


def _is_path(name: str) -> bool:
    path = Path(name).expanduser()
    return name.startswith((".", "~")) or "\\" in name or path.is_absolute() or path.is_dir()


def _run(store: RunStore, run_id: str) -> Subject:
    run = store.find(run_id)
    spec = run.spec()
    if isinstance(spec, TrainSpec) and (run.adapter_path / ADAPTER_CONFIG).is_file():
        return Subject(spec.model, run.adapter_path, run.run_id)
    raise InputError(
        f"Run {run.run_id} has no adapter to export ({spec.kind}, {store.observe(run).status}).",
        hint="Export a training that has completed, or was cancelled after its first step.",
    )


def _folder(folder: Path, paths: PathPolicy) -> Subject:
    if not (folder / ADAPTER_CONFIG).is_file():
        return Subject(ModelGroup(name=classify_model(str(folder)).location))
    base = _base_of(folder, paths)
    run = folder.parent.name if (folder.parent / "spec.json").is_file() and folder.name == "adapter" else None
    return Subject(ModelGroup(name=base), folder, run)


def _base_of(adapter: Path, paths: PathPolicy) -> str:
    try:
        config: dict[str, Any] = read_json(adapter / ADAPTER_CONFIG)
        base = config["base_model_name_or_path"]
        if _is_path(base):
            base = paths.resolve(base, "base_model_name_or_path")
        classify_model(base)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{adapter / ADAPTER_CONFIG} names no base model that can be found ({error}).",
            hint="Put the base's Hub id or folder into base_model_name_or_path.",
            cause=error,
        ) from error
    return base
