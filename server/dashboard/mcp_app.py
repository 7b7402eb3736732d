"""The dashboard of a run, as an MCP App: one page without network, made of the files in `page/`."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from pathlib import Path
from typing import Any

from mcp.server.apps import APP_MIME_TYPE, EXTENSION_ID
from mcp.server.extension import Extension, ResourceBinding
from mcp.server.mcpserver.resources import FunctionResource

URI = "ui://backpropagate/run.html"
META: dict[str, Any] = {"ui": {"resourceUri": URI}, "ui/resourceUri": URI}
"""Of a tool whose result the page shows; older hosts read only the flat name."""

FOLDER = Path(__file__).parent / "page"
SCRIPTS = ("bridge.js", "chart.js", "view.js", "main.js")  # in this order: each uses those before it


class Dashboard(Extension):
    """Serves the page. A client that shows none loses nothing: every result says the same as text.

    Args:
        read_only: whether the page has no button that changes anything.
    """

    identifier = EXTENSION_ID

    def __init__(self, *, read_only: bool = False) -> None:
        self._read_only = read_only

    def resources(self) -> list[ResourceBinding]:
        nothing: list[str] = []
        csp = {"connectDomains": nothing, "resourceDomains": nothing}
        page = FunctionResource(
            uri=URI,
            name="dashboard",
            title="A run, live",
            description="Shows a run while it goes on, for clients with MCP Apps.",
            mime_type=APP_MIME_TYPE,
            meta={"ui": {"csp": csp, "prefersBorder": True}},
            fn=lambda: dashboard_page(read_only=self._read_only),
        )
        return [ResourceBinding(page)]


@cache
def dashboard_page(*, read_only: bool = False) -> str:
    """The page with its style and scripts, and a policy that lets nothing else run or load."""
    style = _file("style.css")
    script = '"use strict";\n' + "".join(map(_file, SCRIPTS))
    policy = (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    page, may_stop = _file("page.html"), "false" if read_only else "true"
    parts = {"csp": policy, "style": style, "may-stop": may_stop, "script": script}
    for name, part in parts.items():
        page = page.replace("{{" + name + "}}", part)
    return page


def _file(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


def _hash(content: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
