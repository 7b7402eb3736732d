"""Definitions of all settings, specs and results. Imports only pydantic and the standard library."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .specs import DataGroup as DataGroup
    from .specs import TrainSpec as TrainSpec

__all__ = ["DataGroup", "TrainSpec"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module(".specs", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
