"""Resolves the source of a push: the adapter of a training, the folder of an export, or a path."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..config.results import ExportResult
from ..config.specs import ExportSpec, TrainSpec
from ..errors import InputError
from ..files.paths import PathPolicy
from ..models.model_folder import folder_form
from ..runs.folder import RunFolder
from ..runs.store import RunStore


@dataclass(frozen=True)
class PushSource:
    """A folder and its training run, if known."""

    folder: Path
    run: str | None = None


def push_source(name: str, store: RunStore, paths: PathPolicy) -> PushSource:
    """The folder of a run id (any unique part of it) or of a path.

    Raises:
        InputError: it contains nothing that can be published.
        RunNotFoundError: no run, or several, match.
        PathForbiddenError: the folder may not be read.
    """
    found = _folder(name, paths) if _is_path(name) else _of_run(store.find(name))
    folder_form(found.folder)
    return found


def _is_path(name: str) -> bool:
    return name.startswith((".", "~")) or "/" in name or "\\" in name or Path(name).is_dir()


def _folder(name: str, paths: PathPolicy) -> PushSource:
    folder = Path(paths.resolve(name, "source"))
    inside_a_run = folder.name == "adapter" and (folder.parent / "spec.json").is_file()
    return PushSource(folder, folder.parent.name if inside_a_run else None)


def _of_run(run: RunFolder) -> PushSource:
    spec = run.spec()
    if isinstance(spec, TrainSpec) and run.adapter_path.is_dir():
        return PushSource(run.adapter_path, run.run_id)
    if isinstance(spec, ExportSpec):
        result = run.state().result
        if isinstance(result, ExportResult) and Path(result.path).is_dir():
            return PushSource(Path(result.path), spec.run)
    raise InputError(
        f"Run {run.run_id} ({spec.kind}) has neither an adapter nor a merged model.",
        hint="Push a completed training, or an export with format merged or lora.",
    )
