"""Resolves the source of a registration to a GGUF file and its training run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..config.results import ExportResult
from ..config.specs import ExportSpec, TrainSpec
from ..errors import InputError, RunFolderError
from ..files.paths import PathPolicy
from ..next_step import then
from ..runs.folder import RunFolder, RunState, Status
from ..runs.store import RunStore

SUFFIX = ".gguf"


@dataclass(frozen=True)
class GgufSubject:
    """A GGUF file.

    Args:
        run: its training run, if known.
    """

    path: Path
    run: str | None


def gguf_subject(source: str, store: RunStore, paths: PathPolicy) -> GgufSubject:
    """The GGUF file of a path, of a GGUF export's id or of a training's id.

    Raises:
        InputError: the file does not exist, or the run has none.
        RunNotFoundError: no run, or several, match.
        PathForbiddenError: the file may not be read.
    """
    if source.casefold().endswith(SUFFIX) or "/" in source or "\\" in source:
        return _file(source, store, paths)
    run = store.find(source)
    spec = run.spec()
    if isinstance(spec, ExportSpec):
        return GgufSubject(_export_of(run, store.observe(run)), spec.run)
    if isinstance(spec, TrainSpec):
        return GgufSubject(_newest_export_of(run, store), run.run_id)
    raise InputError(
        f"Run {run.run_id} is neither a training nor an export ({spec.kind}).",
        hint="Give the run_id of a training or of a GGUF export, or the path of a .gguf file.",
    )


def _file(source: str, store: RunStore, paths: PathPolicy) -> GgufSubject:
    path = Path(paths.resolve(source, "path"))
    if not path.is_file():
        raise InputError(
            f"path: the file {path} does not exist.", hint="Give the path that the export returned."
        )
    return GgufSubject(path, next((spec.run for spec, written in _exports(store) if written == path), None))


def _export_of(run: RunFolder, state: RunState) -> Path:
    path = _written_by(state)
    if path is None:
        raise InputError(
            f"Run {run.run_id} has no GGUF file ({state.status}).",
            hint="Give a completed GGUF export, or export the model.",
            next=then("export", source=...),
        )
    return path


def _newest_export_of(training: RunFolder, store: RunStore) -> Path:
    for spec, path in _exports(store):
        if spec.run == training.run_id:
            return path
    raise InputError(
        f"Run {training.run_id} has not been exported to a GGUF file yet.",
        hint="Export it first, then register it.",
        next=then("export", source=training.run_id),
    )


def _exports(store: RunStore) -> Iterator[tuple[ExportSpec, Path]]:
    """The exports whose GGUF file still exists, newest first."""
    for run, state in store.newest(Status.COMPLETED):
        if not isinstance(state, RunState) or state.kind != "export":
            continue
        with suppress(RunFolderError):
            spec, path = run.spec(), _written_by(state)
            if isinstance(spec, ExportSpec) and path is not None:
                yield spec, path


def _written_by(state: RunState) -> Path | None:
    """The GGUF file of an export, if it still exists."""
    path = Path(state.result.path if isinstance(state.result, ExportResult) else "")
    written = state.status is Status.COMPLETED and path.suffix == SUFFIX and path.is_file()
    return path.resolve() if written else None
