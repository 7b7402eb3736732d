"""Resolves the source of an export: a run, an adapter folder, or a model. Cheap: no weights are read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config.specs import ModelGroup, TrainSpec
from ..errors import InputError, RunNotFoundError
from ..files.atomic_json import read_json
from ..files.paths import PathPolicy
from ..models.presets import PRESETS, classify_model
from ..next_step import then
from ..runs.store import RunStore

ADAPTER_CONFIG = "adapter_config.json"


@dataclass(frozen=True)
class Subject:
    """The exported model and its adapter; `adapter` is None for a model without one."""

    model: ModelGroup
    adapter: Path | None = None
    run: str | None = None


def export_subject(name: str, store: RunStore, paths: PathPolicy) -> Subject:
    """The model of a run id, of the path of an adapter or model folder, or of a model name.

    Raises:
        InputError: it is none of these, or the run has no adapter.
        RunNotFoundError: several runs match.
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
            hint="Give a run id, the absolute path of an adapter or model folder, or a model name.",
            next=then("list_runs"),
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
        hint="Export a training that has completed or was cancelled after its first step.",
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
            f"{adapter / ADAPTER_CONFIG}: the base model cannot be found ({error}).",
            hint="Set base_model_name_or_path to the base model's Hub id or folder.",
            cause=error,
        ) from error
    return base
