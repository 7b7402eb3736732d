"""What a name means: a run, a path, or a model by preset or Hub id. The one answer, for every request.

In this order: a preset; a path (begins with `.` or `~`, is absolute, has a backslash, or exists); a Hub id
(`owner/name`); else a run's id, of which any unique part is enough. Nothing is read of what a path names
before the policy has permitted it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config.results import ExportResult
from ..config.specs import ExportSpec, ModelGroup, TrainSpec
from ..errors import InputError, RunFolderError, RunNotFoundError
from ..files.atomic_json import read_json
from ..files.paths import PathPolicy, looks_like_path
from ..models.model_folder import ADAPTER_FILES, folder_form
from ..models.presets import PRESETS, classify_model, is_hub_id
from ..next_step import then
from ..runs.folder import RunFolder, RunState, Status
from ..runs.store import RunStore

GGUF = ".gguf"


@dataclass(frozen=True)
class Model:
    """A preset or a Hub id."""

    name: str


def meaning_of(name: str, store: RunStore, paths: PathPolicy, argument: str) -> RunFolder | Path | Model:
    """What a name stands for; of a path, what it resolves to.

    Args:
        argument: what errors call it.

    Raises:
        RunNotFoundError: no run, or several, match.
        PathForbiddenError: the path may not be read.
    """
    if name.lower() in PRESETS:
        return Model(name)
    if looks_like_path(name) or name.casefold().endswith(GGUF):
        return Path(paths.resolve(name, argument))
    if is_hub_id(name):
        return Model(name)
    return store.find(name)


# --- A model to export. ---
@dataclass(frozen=True)
class ExportSource:
    """What is exported. `adapter` is None for a model that is exported as it is."""

    model: ModelGroup
    adapter: Path | None = None
    run: str | None = None


def export_source(name: str, store: RunStore, paths: PathPolicy) -> ExportSource:
    """A run, an adapter folder, or a model, by name. Cheap: no weights are read.

    Raises:
        InputError: it is none of these, or the run has no adapter.
        RunNotFoundError: no run, or several, match.
        PathForbiddenError: the folder may not be read.
    """
    try:
        meant = meaning_of(name, store, paths, "source")
    except RunNotFoundError as error:
        raise RunNotFoundError(
            error.message,
            hint="Give a run's id, the absolute path of an adapter or model folder, or a model's name.",
            next=then("list_runs"),
        ) from error
    match meant:
        case Model():
            return ExportSource(ModelGroup(name=meant.name))
        case RunFolder():
            return _trained_by(meant, store)
        case folder if (folder / ADAPTER_FILES[0]).is_file():
            return ExportSource(ModelGroup(name=_base_of(folder, paths)), folder, _run_of(folder))
        case folder:
            return ExportSource(ModelGroup(name=classify_model(str(folder)).location))


def _trained_by(run: RunFolder, store: RunStore) -> ExportSource:
    spec = run.spec()
    if isinstance(spec, TrainSpec) and (run.adapter_path / ADAPTER_FILES[0]).is_file():
        return ExportSource(spec.model, run.adapter_path, run.run_id)
    raise InputError(
        f"Run {run.run_id} has no adapter to export ({spec.kind}, {store.observe(run).status}).",
        hint="Export a training run that has completed, or was cancelled after its first step.",
    )


def _run_of(folder: Path) -> str | None:
    """The run whose adapter folder this is."""
    inside = folder.name == "adapter" and (folder.parent / "spec.json").is_file()
    return folder.parent.name if inside else None


def _base_of(adapter: Path, paths: PathPolicy) -> str:
    try:
        config: dict[str, Any] = read_json(adapter / ADAPTER_FILES[0])
        base = config["base_model_name_or_path"]
        if looks_like_path(base):
            base = paths.resolve(base, "base_model_name_or_path")
        classify_model(base)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{adapter / ADAPTER_FILES[0]} names no base model that can be found ({error}).",
            hint="Put the base's Hub id or folder into base_model_name_or_path.",
            cause=error,
        ) from error
    return base


# --- A GGUF file to register. ---
@dataclass(frozen=True)
class GgufSource:
    """A GGUF file.

    Args:
        run: the training run that it comes from, if that is known.
    """

    path: Path
    run: str | None


def gguf_source(name: str, store: RunStore, paths: PathPolicy) -> GgufSource:
    """The file that a path, a GGUF export's id or a training run's id stands for.

    Raises:
        InputError: there is no such file, or the run has none.
        RunNotFoundError: no run, or several, match.
        PathForbiddenError: the file may not be read.
    """
    match meaning_of(name, store, paths, "path"):
        case Path() as path:
            return _gguf_file(path, store)
        case RunFolder() as run:
            return _gguf_of(run, store)
        case Model():
            raise InputError(
                f"path: there is no file {name}.",
                hint="Give the path that the export returned, or a run's id.",
            )


def _gguf_file(path: Path, store: RunStore) -> GgufSource:
    if not path.is_file():
        raise InputError(f"path: there is no file {path}.", hint="Give the path that the export returned.")
    return GgufSource(path, next((spec.run for spec, made in _gguf_exports(store) if made == path), None))


def _gguf_of(run: RunFolder, store: RunStore) -> GgufSource:
    spec = run.spec()
    if isinstance(spec, ExportSpec):
        state = store.observe(run)
        path = _written_by(state)
        if path is not None:
            return GgufSource(path, spec.run)
        raise InputError(
            f"Run {run.run_id} has written no GGUF file ({state.status}).",
            hint="Give a GGUF export that has completed, or export the model.",
            next=then("export", source=...),
        )
    if not isinstance(spec, TrainSpec):
        raise InputError(
            f"Run {run.run_id} is no training and no export ({spec.kind}).",
            hint="Give the id of a training run or of a GGUF export, or the path of a .gguf file.",
        )
    for export, path in _gguf_exports(store):
        if export.run == run.run_id:
            return GgufSource(path, run.run_id)
    raise InputError(
        f"Run {run.run_id} has not been exported to a GGUF file yet.",
        hint="Export it first, then register it again.",
        next=then("export", source=run.run_id),
    )


def _gguf_exports(store: RunStore) -> Iterator[tuple[ExportSpec, Path]]:
    """GGUF exports whose file is still there, newest first."""
    for run, state in store.newest(Status.COMPLETED):
        if not isinstance(state, RunState) or state.kind != "export":
            continue
        with suppress(RunFolderError):
            spec, path = run.spec(), _written_by(state)
            if isinstance(spec, ExportSpec) and path is not None:
                yield spec, path


def _written_by(state: RunState) -> Path | None:
    """The GGUF file that an export has written, if it is still there."""
    if state.status is not Status.COMPLETED or not isinstance(state.result, ExportResult):
        return None
    path = Path(state.result.path)
    return path.resolve() if path.suffix == GGUF and path.is_file() else None


# --- A folder to push. ---
@dataclass(frozen=True)
class PushSource:
    """A folder, and the training run that it comes from."""

    folder: Path
    run: str | None = None


def push_source(name: str, store: RunStore, paths: PathPolicy) -> PushSource:
    """The folder that a run's id or a path stands for.

    Raises:
        InputError: it holds nothing that can be published.
        RunNotFoundError: no run, or several, match.
        PathForbiddenError: the folder may not be read.
    """
    match meaning_of(name, store, paths, "source"):
        case RunFolder() as run:
            found = _pushable(run)
        case Path() as folder:
            found = PushSource(folder, _run_of(folder))
        case Model():
            raise InputError(
                f"source: {name} is a model of the Hub, and no folder of that name exists.",
                hint="Give a run's id, or the folder of an adapter or a merged model.",
            )
    folder_form(found.folder)
    return found


def _pushable(run: RunFolder) -> PushSource:
    spec = run.spec()
    if isinstance(spec, TrainSpec) and run.adapter_path.is_dir():
        return PushSource(run.adapter_path, run.run_id)
    result = run.state().result
    if isinstance(spec, ExportSpec) and isinstance(result, ExportResult) and Path(result.path).is_dir():
        return PushSource(Path(result.path), spec.run)
    raise InputError(
        f"Run {run.run_id} ({spec.kind}) holds neither an adapter nor a merged model.",
        hint="Push a training run that has completed, or an export with format merged or lora.",
    )
