"""Whether the base model that is found is still the one that was trained on."""

from __future__ import annotations

from pathlib import Path

from ..config.specs import ModelReference, TrainSpec
from ..errors import InputError
from ..files.paths import looks_like_path
from ..models.base_identity import BaseIdentity, difference_from
from ..next_step import Next, then
from ..runs.folder import RunFolder
from ..untrusted import shown_path
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
        InputError: it is not the one that was trained on, and the settings do not allow that.
        ModelLoadError: its files cannot be read.
    """
    if spec.parent is None or context.run.provenance():
        trained = BaseIdentity.from_record(context.run.trained_model())
    else:
        trained = BaseIdentity.of_adapter(context.run.path.parent / spec.parent / "adapter")
    again = then("resume", run_id=context.run.run_id, allow_other_base=True)
    allowed = spec.model.allow_other_base or context.run.state().allow_other_base
    _require_same(context, spec.model.name, trained, folder, allowed, again)


def require_base_of_adapter(context: RunContext, spec: ModelReference, folder: Path) -> None:
    """Check the base that an adapter is used with, if the adapter says what it was trained on.

    Raises:
        InputError: it is another one, and the request does not allow that.
        ModelLoadError: the files of one of them cannot be read.
    """
    trained = BaseIdentity.of_adapter(Path(spec.adapter)) if spec.adapter else None
    again = then("ask_again", allow_other_base=True)
    _require_same(context, spec.model.name, trained, folder, spec.model.allow_other_base, again)


def _require_same(
    context: RunContext,
    model: str,
    trained: BaseIdentity | None,
    folder: Path,
    allowed: bool,
    again: Next,
) -> None:
    changed = trained and difference_from(trained, folder, context.should_stop)
    if not changed:
        return
    name = shown_path(model)
    differs = f"The base model {name} is not the one that was trained on: its {changed} changed"
    if not allowed:
        hint = "Restore the base model of the training, or allow another one."
        raise InputError(f"{differs} ({shown_path(folder)}).", hint=hint, next=again)
    context.recorder.warn(f"{differs}.")
