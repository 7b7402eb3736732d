"""Which experiment trackers a run reports to."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.util import find_spec
from netrc import NetrcParseError, netrc
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from ..config.tracker_names import TRACKERS, TrackerName
from ..errors import MissingExtraError

INSTALLED_BY: dict[str, str] = {
    "wandb": '"backpropagate-mcp[monitoring]"',
    "tensorboard": '"backpropagate-mcp[monitoring]"',
}
"""What to install; by its own name otherwise."""

NOT_INSTALLED = "not installed"
WANDB_ADDRESS = "https://api.wandb.ai"


class Choice(NamedTuple):
    """The trackers that are told of a run, and why others are not."""

    used: list[TrackerName]
    left_out: dict[str, str]


def chosen(report_to: str | list[TrackerName]) -> Choice:
    """The trackers that `report_to` means in this process."""
    if report_to == "none":
        return Choice([], {})
    wanted = TRACKERS if isinstance(report_to, str) else report_to
    reasons = {name: _why_not(name, named=wanted is not TRACKERS) for name in wanted}
    left_out = {str(name): reason for name, reason in reasons.items() if reason}
    return Choice([name for name in wanted if name not in left_out], left_out)


def require_installed(report_to: str | list[TrackerName]) -> None:
    """Refuse a tracker that was named and is not installed.

    Raises:
        MissingExtraError: there is one.
    """
    for name in [] if isinstance(report_to, str) else report_to:
        if not _is_installed(name):
            raise MissingExtraError(
                f"report_to names {name}, which is not installed.",
                hint=f"pip install {INSTALLED_BY.get(name, name)}",
            )


def _why_not(name: TrackerName, *, named: bool) -> str | None:
    if not _is_installed(name):
        return NOT_INSTALLED
    if name == "wandb" and _wandb_is_off():
        return "switched off by WANDB_MODE or WANDB_DISABLED"
    check = CONFIGURED.get(name)
    return None if named or check is None else check()


def _is_installed(name: str) -> bool:
    """A folder of this name without code, such as wandb leaves behind, is no library."""
    try:
        found = find_spec(name)
    except ValueError:  # something else has this name in this process
        return False
    return found is not None and found.origin is not None


def _wandb_is_off() -> bool:
    disabled = os.environ.get("WANDB_DISABLED", "").casefold() in {"true", "1", "yes"}
    return disabled or os.environ.get("WANDB_MODE", "").casefold() == "disabled"


def _no_wandb_login() -> str | None:
    if os.environ.get("WANDB_MODE", "").casefold() in {"offline", "dryrun"}:
        return None
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return None
    host = urlsplit(os.environ.get("WANDB_BASE_URL") or WANDB_ADDRESS).hostname or ""
    return None if _in_netrc(host) else "not logged in: no WANDB_API_KEY, no entry in .netrc"


def _in_netrc(host: str) -> bool:
    named = os.environ.get("NETRC")
    for path in [Path(named)] if named else [Path.home() / ".netrc", Path.home() / "_netrc"]:
        try:
            if netrc(path.expanduser()).hosts.get(host):
                return True
        except (OSError, NetrcParseError, UnicodeDecodeError):
            continue
    return False


def _no_mlflow_address() -> str | None:
    return None if os.environ.get("MLFLOW_TRACKING_URI") else "no MLFLOW_TRACKING_URI"


CONFIGURED: dict[TrackerName, Callable[[], str | None]] = {
    "wandb": _no_wandb_login,
    "mlflow": _no_mlflow_address,
}
"""Why a tracker is not configured; TensorBoard and trackio write local files, and need no configuration."""
