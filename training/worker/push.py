"""Executes a push to the Hub, in the short queue, since it needs neither a device nor torch."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from ..config.results import PushResult
from ..export.hub.published_files import published_files
from ..export.hub.push import Destination, Pushed, push
from .context import RunContext, WaitForDevice

CARD_KEPT = (
    "The README.md of the repository was kept: it was not written by backpropagate, or was edited since. "
    "overwrite=true replaces it."
)


def run(context: RunContext, wait_for_device: WaitForDevice) -> None:
    """Publish the run's folder.

    Raises:
        InputError: the folder contains nothing that can be published.
        HubPushError: the push failed.
        TrainingAbortedError: it was cancelled; the repository is unchanged.
    """
    spec = context.run.spec()
    assert spec.kind == "push"
    wait_for_device()
    context.recorder.phase("checking", "checking the files to publish")
    context.permit_links(Path(spec.folder), "source")
    files = published_files(Path(spec.folder), context.permit)
    to = Destination(spec.repo, spec.private, spec.overwrite)
    pushed = push(files, to, context.report, context.should_stop, before_commit=context.require_permitted)
    if pushed.card_kept:
        context.recorder.warn(CARD_KEPT)
    context.recorder.completed(PushResult.model_validate({**asdict(pushed), "summary": _summary(pushed)}))


def _summary(pushed: Pushed) -> str:
    visibility = "private" if pushed.private else "public"
    return f"Published {len(pushed.files)} files, {pushed.bytes / 1e6:,.1f} MB: {pushed.url} ({visibility})."
