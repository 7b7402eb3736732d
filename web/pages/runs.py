"""All runs, newest first."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from ...training.runs.folder import Status
from ...training.untrusted import quoted
from ..desk import desk_of
from ..look import clean, page

SHOWN, MOST = 25, 1000


async def show(request: Request) -> Response:
    """The newest runs, or those with a status."""
    given = request.query_params.get("status", "")
    status = Status(given) if given in list(Status) else None
    limit = _limit(request.query_params.get("limit", ""))
    runs, unreadable = await desk_of(request).service.list(status, limit)
    lines = [run.model_dump(mode="json") for run in runs]
    return page(
        request,
        "runs.html",
        runs=clean(lines),
        unreadable=clean(unreadable),
        status=status.value if status else "",
        statuses=[each.value for each in Status],
        unknown=quoted(given) if given and status is None else "",
        more=min(MOST, 4 * limit) if len(runs) >= limit and limit < MOST else None,
        interrupted=[run for run in lines if run["status"] == "interrupted"][:3],
    )


def _limit(text: str) -> int:
    return max(1, min(MOST, int(text))) if text.isdecimal() and len(text) < 6 else SHOWN
