"""How long a call may wait for its run, by the client that made it.

A client that gives a call up shows its user an error, though the run goes on.
"""

from __future__ import annotations

import math
from typing import Any

from mcp.server.mcpserver import Context

LONGEST_S = {
    "jetbrains": 25.0,
    "intellij": 25.0,
    "chat-ui": 25.0,
    "claude-ai": 50.0,
    "codex": 50.0,
    "gemini": 50.0,
    "eclipse": 50.0,
    "antigravity": 150.0,
    "visual studio code": 240.0,
    "claude-code": 1500.0,
}
"""Seconds, less than after which a client of this name, or with it in its name, gives a call up."""

USUAL_S = 50.0
WITHOUT_PROGRESS_S = 25.0  # such a client sees no sign of life


def longest_wait_s(context: Context[Any, Any], *, asked: bool) -> float:
    """The longest that a call may wait.

    Args:
        asked: whether the call says how long. Only a client that is known to give up sooner waits shorter
            than it asks; others know what they do.
    """
    known = _known(context)
    if asked:
        return known or math.inf
    return min(known or math.inf, USUAL_S if known or _shows_progress(context) else WITHOUT_PROGRESS_S)


def _known(context: Context[Any, Any]) -> float | None:
    client = context.session.client_params
    name = client.client_info.name.lower() if client else ""
    return next((seconds for part, seconds in LONGEST_S.items() if part in name), None)


def _shows_progress(context: Context[Any, Any]) -> bool:
    return (context.request_context.meta or {}).get("progress_token") is not None
