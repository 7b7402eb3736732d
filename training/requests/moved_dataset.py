"""Where the dataset of a run that is resumed is now: its own path, or another one with equal content."""

from __future__ import annotations

from typing import Any

from ..config.specs import DataGroup, MultiRunSpec, TrainingSpec
from ..data.formats.reading import open_data
from ..data.readers.hub_names import is_on_hub
from ..data.readers.sources import Permit
from ..errors import InputError
from ..events import ShouldStop, never_stop
from ..next_step import then
from ..runs.folder import RunFolder
from ..untrusted import shown_path


def moved_dataset(
    run: RunFolder, given: str | list[str], permit: Permit, should_stop: ShouldStop = never_stop
) -> str | list[str] | None:
    """`given` if it has the content of the run's dataset; None if it is what the run names itself.

    Args:
        given: absolute paths.

    Raises:
        InputError: it is another dataset, or cannot be compared.
        DatasetError: it cannot be read.
    """
    spec = run.request_now()
    if not isinstance(spec, TrainingSpec):
        raise InputError(f"Run {run.run_id} has no dataset to move ({spec.kind}).", hint="Leave dataset out.")
    if isinstance(spec, MultiRunSpec) and spec.tasks:
        raise InputError(
            f"Run {run.run_id} has {len(spec.tasks)} datasets, one for each task.", hint="Leave dataset out."
        )
    if given == spec.data.source:
        return None
    _require_equal(run, spec.data, given, permit, should_stop)
    return given


def _require_equal(
    run: RunFolder, own: DataGroup, given: str | list[str], permit: Permit, should_stop: ShouldStop
) -> None:
    trained: Any = (run.provenance() or {}).get("dataset", {})
    recorded: dict[str, Any] = trained.get("provenance") or {}
    if not recorded or (isinstance(given, str) and is_on_hub(given)):
        raise _another(
            run, own, given, "no content of it is recorded" if not recorded else "it is on the Hub"
        )
    source = open_data(own.model_copy(update={"source": given}), permit, should_stop)
    if source.content_hash(should_stop) != recorded["content_hash"]:
        raise _another(run, own, given, "its content differs")
    names = [part.name for part in source.parts]
    if names != recorded["files"]:
        raise _another(run, own, given, f"its files are called {names}, and were {recorded['files']}")


def _another(run: RunFolder, own: DataGroup, given: object, reason: str) -> InputError:
    return InputError(
        f"{_shown(given)} is not the dataset of run {run.run_id}, {_shown(own.source)}: {reason}.",
        hint="A resumed run keeps its dataset. Leave dataset out to resume it, or leave the run out to train "
        "a new one on this dataset.",
        next=then("resume", run_id=run.run_id),
    )


def _shown(source: object) -> str:
    first = source[0] if isinstance(source, list) else source  # pyright: ignore[reportUnknownVariableType]
    return shown_path(str(first))  # pyright: ignore[reportUnknownArgumentType]
