"""A run as its page tells it: what the dashboard draws, with the words of these pages."""

from __future__ import annotations

from typing import Any

from ..tools.status import run_status
from ..training.config.specs import TRAININGS
from ..training.errors import help_of
from ..training.runs.after_status import would_fail_again
from ..training.runs.folder import ENDED, Status
from ..training.runs.view import RunView
from .look import clean
from .wording import words

STOPPED = {Status.CANCELLED, Status.FAILED, Status.INTERRUPTED}


def told_run(view: RunView) -> dict[str, Any]:
    """The run for a template and for a browser; all text in it is cleaned."""
    status = run_status(view, whole=True)
    told = status.model_dump(mode="json", exclude_none=True, exclude={"untrusted_result", "next", "note"})
    if view.error:
        told["error"] = {
            "code": view.error.code,
            "message": view.error.message,
            "hint": help_of(view.error, words),
            "untrusted_details": view.error.untrusted_details or "",
        }
    return clean(told | {"can": sorted(_can(view))})


def _can(view: RunView) -> set[str]:
    """What may be pressed now."""
    if view.status not in ENDED:
        return {"cancel"}
    can = {"delete"}
    if view.status in STOPPED and not (view.error and would_fail_again(view.error)):
        can.add("resume")
    if view.kind in TRAININGS and view.adapter_path:
        can |= {"ask", "export"} | ({"extend"} if view.kind == "train" else set())
    if view.kind == "export" and view.status is Status.COMPLETED:
        can.add("register")
    return can
