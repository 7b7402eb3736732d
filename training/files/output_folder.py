"""Where a copy of the adapter may go; known before anything is trained."""

from __future__ import annotations

from pathlib import Path

from ..errors import InputError


def check_output(output: str | None) -> None:
    """Refuse an output folder in which something would be lost.

    Raises:
        InputError: it is a file, or a folder with something in it.
    """
    if output is None:
        return
    path = Path(output)
    if path.is_dir() and not any(path.iterdir()):
        return
    if path.exists():
        raise InputError(
            f"output: {path} exists already.", hint="Name a folder that does not exist yet, or an empty one."
        )
