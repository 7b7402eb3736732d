"""The scope that each request needs. The body decides, in both eras: a header could say something else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ...tools import TOOLS

READ, WRITE, ADMIN = "runs:read", "runs:write", "admin"
SCOPES = (READ, WRITE, ADMIN)
"""Each permits also what those before it permit."""

READING = frozenset(
    {
        "completion/complete",
        "initialize",
        "logging/setLevel",
        "ping",
        "prompts/get",
        "prompts/list",
        "resources/list",
        "resources/read",
        "resources/subscribe",
        "resources/templates/list",
        "resources/unsubscribe",
        "server/discover",
        "skills/get",
        "skills/list",
        "subscriptions/listen",
        "tasks/get",
        "tools/list",
    }
)
AS_OWNER = frozenset({"push_to_hub"})
"""Tools that act with an account of the home's owner."""

_READING_TOOLS = frozenset(tool.name for tool in TOOLS if tool.read_only)


def scope_of(message: Mapping[str, Any]) -> str:
    """The scope that a JSON-RPC message needs; one that is not known needs the right to write."""
    method = message.get("method")
    if method is None or method in READING or str(method).startswith("notifications/"):
        return READ
    if method != "tools/call":
        return WRITE
    params = message.get("params")
    name = params.get("name") if isinstance(params, dict) else None  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
    if name in _READING_TOOLS:
        return WRITE if _takes_the_device(params) else READ
    return ADMIN if name in AS_OWNER else WRITE


def _takes_the_device(params: Any) -> bool:
    """Whether a call of a reading tool trains some steps: a probe keeps nothing, but others wait for it."""
    arguments = params.get("arguments")
    return isinstance(arguments, dict) and bool(arguments.get("probe"))  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]


def up_to(scope: str) -> tuple[str, ...]:
    """This scope and those that it includes, as a client should ask for them."""
    return SCOPES[: SCOPES.index(scope) + 1]


def permits(given: Iterable[str], needed: str) -> bool:
    """Whether one of the scopes is the needed one, or includes it."""
    return any(SCOPES.index(scope) >= SCOPES.index(needed) for scope in given if scope in SCOPES)
