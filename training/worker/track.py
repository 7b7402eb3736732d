"""Starts the experiment trackers of a training, and puts into its result what they were told."""

from __future__ import annotations

from ..config.results import AnyResult, TrackerRecord, TrainingResult
from ..config.specs import TrainingSpec
from ..errors import ErrorRecord
from ..runs.folder import Status
from ..trackers.child import Children
from ..trackers.choice import Choice, chosen
from ..trackers.main import Ending
from ..trackers.measures import summary_of
from .context import RunContext


def track(context: RunContext) -> None:
    """Let the trackers follow the run from here on; to be called when it has its plan."""
    spec, recorder = context.run.spec(), context.recorder
    assert isinstance(spec, TrainingSpec)
    choice = chosen(spec.training.report_to)
    if isinstance(spec.training.report_to, list):
        for name, reason in choice.left_out.items():
            recorder.warn(f"{name} is not told of this run: {reason}.")
    after = max((event.seq for event in context.run.latest_events()), default=0)
    children = Children(choice.used, context.run, after, recorder.warn)

    def ended(status: Status, result: AnyResult | None, error: ErrorRecord | None) -> AnyResult | None:
        summary = summary_of(result, error.code if error else None) | {"final/status": status.value}
        told = children.end(Ending(succeeded=status is not Status.FAILED, summary=summary))
        return _with_trackers(result, choice, told)

    recorder.before_end = ended


def _with_trackers(result: AnyResult | None, choice: Choice, told: list[TrackerRecord]) -> AnyResult | None:
    if not isinstance(result, TrainingResult):
        return result
    return result.model_copy(update={"trackers": told, "no_trackers": choice.left_out})
