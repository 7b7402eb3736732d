"""Where a copy of the adapter may be written; checked before anything is trained."""

from __future__ import annotations

from pathlib import Path

from ..errors import InputError
from ..untrusted import shown_path


def check_output(output: str | None) -> None:
    """Refuse an output that would overwrite something.

    Raises:
        InputError: it is a file, or a folder that is not empty.
    """
    if output is None:
        return
    path = Path(output)
    if path.is_dir() and not any(path.iterdir()):
        return
    if path.exists():
        raise InputError(
            f"output: {shown_path(path)} already exists.",
            hint="Give an empty folder, or one that does not exist yet."
            if path.is_dir()
            else "Give a name that is not in use.",
        )
