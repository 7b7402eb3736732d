"""A push to the Hub, carried out by a worker of the short lane: it needs neither a device nor torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from ..export.hub.published_files import published_files
from ..export.hub.push import Destination, Pushed, push
from .context import Work


def carry_out(work: Work, take_turn: Callable[[], None]) -> None:
    """Publish the run's folder; the result is what `Pushed` tells.

    Raises:
        InputError: the folder holds nothing that can be published.
        HubPushError: the Hub did not take it.
        TrainingAbortedError: it was cancelled; the repository is as it was.
    """
    spec = work.run.spec()
    assert spec.kind == "push"
    take_turn()
    work.journal.phase("checking", "looking at what is to be published")
    files = published_files(Path(spec.folder), work.permit)
    to = Destination(spec.repo, spec.private, spec.overwrite)
    pushed = push(files, to, work.report, work.should_stop)
    work.journal.completed({**asdict(pushed), "summary": _summary(pushed)})


def _summary(pushed: Pushed) -> str:
    visibility = "private" if pushed.private else "public"
    return f"{len(pushed.files)} files, {pushed.bytes / 1e6:,.1f} MB, are at {pushed.url} ({visibility})."
