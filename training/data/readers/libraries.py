"""Imports libraries when they are first needed, with an error that says what to install."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from ...errors import MissingExtraError

EXTRA = 'pip install "backpropagate-mcp[train]"'


def library(name: str, purpose: str) -> Any:
    """Imports the module `name`.

    Raises:
        MissingExtraError: it is not installed. `purpose` begins the message, e.g. "Reading Parquet".
    """
    try:
        return import_module(name)
    except ImportError as error:
        package = name.split(".")[0]
        raise MissingExtraError(f"{purpose} needs the package {package}.", hint=EXTRA, cause=error) from None
