"""Takes the paths of this machine out of what is published: the last part of a path stays, as its name."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

PATH = re.compile(
    r"""(?<![\w:/.~])(?:file://)?(?:
          /(?:[\w.@+~-]+/)+[\w.@+~-]*       # /home/me/models/base
        | (?:[A-Za-z]:|\\\\[\w.-]+)(?:[\\/]{1,2}[\w.@+~-]+)+[\\/]*   # C:\\Users\\me, \\server\share
        )""",
    re.VERBOSE,
)
PRIVATE_ROOTS = frozenset(
    {
        *("home", "Users", "root", "tmp", "private", "var", "mnt", "media", "Volumes", "data", "datasets"),
        *("models", "workspace", "workspaces", "work", "content", "kaggle", "scratch", "srv", "opt", "nfs"),
        *("lustre", "gpfs"),
    }
)
"""Folders at the top of a machine that hold what its users make."""
NAME = re.compile(r"[^\\/]+(?=[\\/]*$)")
BASE_TAG = "base_model:"


def without_paths(text: str, known: Iterable[str] = ()) -> str:
    """The text with each path of this machine shortened to its name.

    Args:
        known: paths of this machine, in any form.
    """
    for path in sorted(filter(_is_whole, known), key=len, reverse=True):
        text = text.replace(path, name_of(path))
    return PATH.sub(lambda hit: name_of(hit[0]) if _is_private(hit[0]) else hit[0], text)


def json_without_paths(value: Any) -> Any:
    """A configuration with each text that is a path of this machine shortened to its name."""
    if isinstance(value, str):
        return name_of(value) if PATH.fullmatch(value) and _is_private(value) else value
    if isinstance(value, dict):
        return {key: json_without_paths(item) for key, item in value.items()}  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, list):
        return [json_without_paths(item) for item in value]  # pyright: ignore[reportUnknownVariableType]
    return value


def name_of(path: str) -> str:
    found = NAME.search(path)
    return found[0].rstrip("\\/") if found else path


def _is_whole(path: str) -> bool:
    """Whether it is long enough to be looked for in a text."""
    return len(path) > 3 and ("/" in path or "\\" in path)


def _is_private(path: str) -> bool:
    if not path.startswith("/"):
        return True
    return path.split("/")[1] in PRIVATE_ROOTS or os.path.lexists(path) or _in_home(path)


def _in_home(path: str) -> bool:
    return path.startswith(f"{Path.home().as_posix()}/")
