"""Whether the base model that is found is still the one that was trained on."""

from __future__ import annotations

from pathlib import Path

from ..config.specs import ExportSpec, TrainSpec
from ..errors import InputError
from ..files.paths import looks_like_path
from ..models.base_identity import BaseIdentity, difference_from
from ..next_step import then
from ..runs.folder import RunFolder
from .context import RunContext


def trained_revision(run: RunFolder, spec: TrainSpec) -> str | None:
    """The commit that an earlier attempt, or the run that is continued, was trained on, if it is known."""
    if looks_like_path(spec.model.name):
        return None
    earlier = run if spec.parent is None or run.provenance() else RunFolder(run.path.parent / spec.parent)
    return earlier.base_revision()


def require_trained_base(context: RunContext, spec: TrainSpec, folder: Path) -> None:
    """Check the base of a later attempt, or of a run that continues another.

    Raises:
        InputError: it is not the one that was trained on.
    """
    trained = _trained_base(context.run, spec)
    changed = trained and difference_from(trained, folder, context.should_stop)
    if changed:
        raise InputError(
            f"The base model {spec.model.name} in {folder} is not the one that was trained on: its {changed} "
            "changed.",
            hint="Restore the base model of the training, or start a new run.",
        )


def require_base_of_adapter(context: RunContext, spec: ExportSpec, folder: Path) -> None:
    """Check the base that an adapter is exported with, if the adapter says what it was trained on.

    Raises:
        InputError: it is another one, and the request does not allow that.
        ModelLoadError: the weights of one of them cannot be read.
    """
    if spec.adapter is None:
        return
    trained = BaseIdentity.of_adapter(Path(spec.adapter))
    changed = trained and difference_from(trained, folder, context.should_stop)
    if not changed:
        return
    differs = f"The base model {spec.model.name} is not the one that was trained on: its {changed} changed"
    if spec.allow_other_base:
        context.recorder.warn(f"{differs}.")
        return
    raise InputError(
        f"{differs} ({folder}).",
        hint="Restore the base model of the training, or allow another one.",
        next=then("ask_again", allow_other_base=True),
    )


def _trained_base(run: RunFolder, spec: TrainSpec) -> BaseIdentity | None:
    if spec.parent is None or run.provenance():
        return BaseIdentity.from_record(run.trained_model())
    return BaseIdentity.of_adapter(run.path.parent / spec.parent / "adapter")
