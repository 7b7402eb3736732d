"""The client's roots: the folders that its user works in, asked for when a path is refused without them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
from mcp import MCPError
from mcp.server.mcpserver import Context
from mcp.types import InputRequiredResult, ListRootsRequest, ListRootsResult

from ..training.files.paths import without_uri

ASKED_IN_RESULT = "2026-07-28"
"""From this version of the protocol on, a server asks by its result, and the client repeats its call."""

KEY = "roots"
PATIENCE_S = 5.0


async def client_roots(context: Context[Any, Any]) -> list[Path] | InputRequiredResult:
    """The folders, or the question for them as the result of the call; none if the client has no roots."""
    capabilities = context.client_capabilities
    if capabilities is None or capabilities.roots is None:
        return []
    if (context.protocol_version or "") < ASKED_IN_RESULT:
        return _folders(await _asked(context))
    if context.input_responses is None:
        return InputRequiredResult(input_requests={KEY: ListRootsRequest()})
    return _folders(context.input_responses.get(KEY))


async def _asked(context: Context[Any, Any]) -> object:
    with anyio.move_on_after(PATIENCE_S):
        try:
            return await context.session.send_request(ListRootsRequest(), ListRootsResult)
        except MCPError:
            return None
    return None


def _folders(answer: object) -> list[Path]:
    """The folders of this machine in the answer."""
    if not isinstance(answer, ListRootsResult):
        return []
    paths = [Path(without_uri(str(root.uri))) for root in answer.roots]
    return [path for path in paths if path.is_absolute() and path.is_dir()]
