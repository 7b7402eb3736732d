"""What a page looks like: its template, and the files that a browser loads.

The curve and the views of a run are the dashboard's own files, so a run looks the same in a chat.
Templates escape every text; scripts set text as text.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from ..server import dashboard
from ..tools.status import duration
from ..training.errors import BackpropagateError, help_of
from ..training.models.presets import PRESETS
from ..training.redact import scrub, scrub_all
from ..training.untrusted import sanitized, sanitized_all
from ..training.version import __version__
from .desk import desk_of, session_of
from .wording import words

HERE = Path(__file__).parent
DASHBOARD = Path(dashboard.__file__).parent / "page"
FILES = {
    "page.css": (DASHBOARD / "style.css", HERE / "static" / "site.css"),
    "chart.js": (DASHBOARD / "chart.js",),
    "view.js": (DASHBOARD / "view.js",),
    "site.js": (HERE / "static" / "site.js",),
    "run.js": (HERE / "static" / "run.js",),
    "runs.js": (HERE / "static" / "runs.js",),
    "icon.svg": (HERE / "static" / "icon.svg",),
}
"""What a page can load; several files are joined."""
FOREVER = "public, max-age=31536000, immutable"
TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
PAGES = {
    "/train": "Train",
    "/multi-run": "Multi-run",
    "/dataset": "Dataset",
    "/runs": "Runs",
    "/ask": "Ask",
    "/export": "Export",
    "/models": "Models",
}
SIGNS = {
    "queued": "…",
    "running": "▶",
    "completed": "✓",
    "failed": "✕",
    "cancelled": "■",
    "interrupted": "!",
}


@cache
def _templates() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"short": short, "duration": duration, "file": name_of}
    known = {
        "PAGES": PAGES,
        "PRESETS": list(PRESETS),
        "SIGNS": SIGNS,
        "VERSION": __version__,
        "static": address,
    }
    environment.globals.update(known)  # pyright: ignore[reportCallIssue, reportArgumentType]
    return environment


def page(
    request: Request,
    template: str,
    *,
    http_status: int | None = None,
    error: BackpropagateError | None = None,
    **values: Any,
) -> Response:
    """The page of a template.

    Args:
        http_status: None: 422 if there is an error, else 200.
        error: shown at its top, with what to do.
    """
    desk, session = desk_of(request), session_of(request)
    told = told_of(error) if error else None
    text = (
        _templates()
        .get_template(template)
        .render(
            **values,
            error=told,
            asks=error is not None and error.code == "INPUT_CONFIRMATION_NEEDED",
            csrf=desk.sessions.form_token(session),
            user=session.user,
            here=request.url.path,
            outputs=str(desk.outputs),
            uploads=desk.uploads,
        )
    )
    return HTMLResponse(text, status_code=http_status or (422 if error else 200))


def to_run(run_id: str, *, same: bool = False) -> Response:
    """On to the page of a run.

    Args:
        same: whether it was there before: the page says so.
    """
    return RedirectResponse(f"/runs/{run_id}{'?same=1' if same else ''}", 303)


def told_of(error: BackpropagateError) -> dict[str, str]:
    """An error as a person reads it here."""
    record = error.record()
    told = {"code": error.code, "message": record.message, "help": help_of(record, words)}
    return clean(told | {"untrusted": error.untrusted or ""})


def clean(value: Any) -> Any:
    """The value without secrets and hidden characters, at any depth."""
    return sanitized_all(scrub_all(value))


def clean_text(text: str) -> str:
    return sanitized(scrub(text))


def short(value: float | None) -> str:
    """At most four significant digits; a dash for nothing."""
    return "\N{EN DASH}" if value is None else f"{value:.4g}"


def name_of(path: str) -> str:
    """The last folder or file of a path; names of the Hub stay as they are."""
    parts = [part for part in path.replace("\\", "/").split("/") if part]
    is_path = len(parts) > 2 or path[:1] in "\\/~." or path[1:2] == ":"
    return parts[-1] if parts and is_path else path


def address(name: str) -> str:
    """Of a file that pages load: another one with each content, so that browsers can keep it."""
    return f"/static/{name}?v={_content(name)[1]}"


async def static_file(request: Request) -> Response:
    """One of the files that pages load."""
    name = str(request.path_params["name"])
    if name not in FILES:
        return Response("No such file.", 404)
    content, version = _content(name)
    kept = FOREVER if request.query_params.get("v") == version else "no-cache"
    return Response(content, headers={"cache-control": kept}, media_type=TYPES[Path(name).suffix])


@cache
def _content(name: str) -> tuple[bytes, str]:
    """What is in it, and a short hash of that."""
    content = b"\n".join(file.read_bytes() for file in FILES[name])
    return content, hashlib.sha256(content).hexdigest()[:16]


def texts(form: Mapping[str, Any]) -> dict[str, str]:
    """The fields of a form that are text."""
    return {name: value for name, value in form.items() if isinstance(value, str)}
