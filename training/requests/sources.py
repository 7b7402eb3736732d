"""Resolves names for every request: to a run, a path, or a model (preset or Hub id).

In this order: a preset; a path (begins with `.` or `~`, is absolute, has a backslash, or exists); a Hub id
(`owner/name`); else a run id, or any unique part of one. A path is read only after the policy has permitted
it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config.results import ExportResult
from ..config.specs import ExportSpec, ModelGroup, TrainingSpec
from ..errors import InputError, RunFolderError, RunNotFoundError
from ..files.atomic_json import read_json
from ..files.paths import PathPolicy, looks_like_path
from ..models.model_folder import ADAPTER_FILES, folder_form
from ..models.presets import classify_model, hub_id_of, is_hub_id
from ..next_step import then
from ..runs.folder import RunFolder, RunState, Status
from ..runs.store import RunStore
from ..untrusted import quoted, shown_path

GGUF = ".gguf"


@dataclass(frozen=True)
class Model:
    """A preset or a Hub id."""

    name: str


def meaning_of(name: str, store: RunStore, paths: PathPolicy, argument: str) -> RunFolder | Path | Model:
    """The run, the resolved path or the model of a name.

    Args:
        argument: the name of the argument in errors.

    Raises:
        RunNotFoundError: no run, or several, match.
        PathForbiddenError: the path may not be read.
    """
    if hub_id_of(name):
        return Model(name)
    if looks_like_path(name) or name.casefold().endswith(GGUF):
        path = Path(paths.resolve(name, argument))
        paths.permit_links(path, argument)
        return path
    if is_hub_id(name):
        return Model(name)
    return store.find(name)


# --- A model to export or to ask. ---
@dataclass(frozen=True)
class ExportSource:
    """A model and its adapter; `adapter` is None for a model without one."""

    model: ModelGroup
    adapter: Path | None = None
    run: str | None = None

    def roots(self, paths: PathPolicy) -> list[str] | None:
        """The folders that its run may read; a run's own model was permitted for the training."""
        roots = paths.recorded()
        trained = self.run is not None and looks_like_path(self.model.name)
        return [*roots, self.model.name] if roots is not None and trained else roots


def export_source(name: str, store: RunStore, paths: PathPolicy, argument: str = "source") -> ExportSource:
    """A run, an adapter folder, or a model, by name. Cheap: no weights are read.

    Args:
        argument: the name of the argument in errors.

    Raises:
        InputError: it is none of these, or the run has no adapter.
        RunNotFoundError: no run, or several, match.
        PathForbiddenError: the folder may not be read.
    """
    try:
        meant = meaning_of(name, store, paths, argument)
    except RunNotFoundError as error:
        raise RunNotFoundError(
            error.message,
            hint="Give a run id, the absolute path of an adapter or model folder, or a model name.",
            next=then("list_runs"),
        ) from error
    match meant:
        case Model():
            return ExportSource(ModelGroup(name=meant.name))
        case RunFolder():
            return _trained_by(meant, store)
        case folder if (folder / ADAPTER_FILES[0]).is_file():
            return ExportSource(_base_of(folder, paths), folder, _run_of(folder))
        case folder:
            return ExportSource(ModelGroup(name=classify_model(str(folder)).location))


def _trained_by(run: RunFolder, store: RunStore) -> ExportSource:
    spec = run.spec()
    if isinstance(spec, TrainingSpec) and (run.adapter_path / ADAPTER_FILES[0]).is_file():
        return ExportSource(_trained_model(spec.model, run), run.adapter_path, run.run_id)
    raise InputError(
        f"Run {run.run_id} has no adapter ({spec.kind}, {store.observe(run).status}).",
        hint="Give a training run that has completed or was cancelled after its first step.",
    )


def _trained_model(model: ModelGroup, run: RunFolder) -> ModelGroup:
    """The base at the commit that was trained on: since then, the name may have come to mean another one."""
    if looks_like_path(model.name):
        return model
    return model.model_copy(update={"revision": run.base_revision() or model.revision})


def _run_of(folder: Path) -> str | None:
    """The run whose adapter folder this is."""
    inside = folder.name == "adapter" and (folder.parent / "spec.json").is_file()
    return folder.parent.name if inside else None


def _base_of(adapter: Path, paths: PathPolicy) -> ModelGroup:
    try:
        config: dict[str, Any] = read_json(adapter / ADAPTER_FILES[0])
        base = config["base_model_name_or_path"]
        if looks_like_path(base):
            return _checked(paths.resolve(base, "base_model_name_or_path"))
        return _checked(base, config.get("revision"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{shown_path(adapter / ADAPTER_FILES[0])}: the base model cannot be found "
            f"({type(error).__name__}).",
            untrusted=str(error),
            hint="Set base_model_name_or_path to the base model's Hub id or folder.",
            cause=error,
        ) from error


def _checked(name: str, revision: str | None = None) -> ModelGroup:
    classify_model(name)
    return ModelGroup(name=name, revision=revision)


# --- A GGUF file to register. ---
@dataclass(frozen=True)
class GgufSource:
    """A GGUF file.

    Args:
        run: its training run, if known.
    """

    path: Path
    run: str | None


def gguf_source(name: str, store: RunStore, paths: PathPolicy) -> GgufSource:
    """The GGUF file of a path, of a GGUF export's id or of a training run's id.

    Raises:
        InputError: the file does not exist, or the run has none.
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
                f"path: the file {shown_path(name)} does not exist.",
                hint="Give the path that the export returned, or a run id.",
            )


def _gguf_file(path: Path, store: RunStore) -> GgufSource:
    if not path.is_file():
        raise InputError(
            f"path: the file {shown_path(path)} does not exist.",
            hint="Give the path that the export returned.",
        )
    return GgufSource(path, next((spec.run for spec, made in _gguf_exports(store) if made == path), None))


def _gguf_of(run: RunFolder, store: RunStore) -> GgufSource:
    spec = run.spec()
    if isinstance(spec, ExportSpec):
        state = store.observe(run)
        path = _written_by(state)
        if path is not None:
            return GgufSource(path, spec.run)
        raise InputError(
            f"Run {run.run_id} has no GGUF file ({state.status}).",
            hint="Give a completed GGUF export, or export the model.",
            next=then("export", source=...),
        )
    if not isinstance(spec, TrainingSpec):
        raise InputError(
            f"Run {run.run_id} is neither a training nor an export ({spec.kind}).",
            hint="Give the id of a training run or of a GGUF export, or the path of a .gguf file.",
        )
    for export, path in _gguf_exports(store):
        if export.run == run.run_id:
            return GgufSource(path, run.run_id)
    raise InputError(
        f"Run {run.run_id} has not been exported to a GGUF file yet.",
        hint="Export it first, then register it.",
        next=then("export", source=run.run_id),
    )


def _gguf_exports(store: RunStore) -> Iterator[tuple[ExportSpec, Path]]:
    """GGUF exports whose file still exists, newest first."""
    for run, state in store.newest(Status.COMPLETED):
        if not isinstance(state, RunState) or state.kind != "export":
            continue
        with suppress(RunFolderError):
            spec, path = run.spec(), _written_by(state)
            if isinstance(spec, ExportSpec) and path is not None:
                yield spec, path


def _written_by(state: RunState) -> Path | None:
    """The GGUF file of an export, if it still exists."""
    if state.status is not Status.COMPLETED or not isinstance(state.result, ExportResult):
        return None
    path = Path(state.result.path)
    return path.resolve() if path.suffix.casefold() == GGUF and path.is_file() else None


# --- A folder to push. ---
@dataclass(frozen=True)
class PushSource:
    """A folder and its training run, if known."""

    folder: Path
    run: str | None = None


def push_source(name: str, store: RunStore, paths: PathPolicy) -> PushSource:
    """The folder of a run id or of a path.

    Raises:
        InputError: it contains nothing that can be published.
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
                f"source: {quoted(name)} is a Hub model, and no folder of that name exists.",
                hint="Give a run id, or the folder of an adapter or a merged model.",
            )
    folder_form(found.folder)
    return found


def _pushable(run: RunFolder) -> PushSource:
    spec = run.spec()
    if isinstance(spec, TrainingSpec) and run.adapter_path.is_dir():
        return PushSource(run.adapter_path, run.run_id)
    result = run.state().result
    if isinstance(spec, ExportSpec) and isinstance(result, ExportResult) and Path(result.path).is_dir():
        return PushSource(Path(result.path), spec.run)
    raise InputError(
        f"Run {run.run_id} ({spec.kind}) has neither an adapter nor a merged model.",
        hint="Push a completed training run, or an export with format merged or lora.",
    )
