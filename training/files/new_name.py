"""Gives a finished file or folder its name, and never takes the name from something else.

Between the look at a name and the end of the work, hours can pass and somebody can use the name.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from itertools import chain, count
from pathlib import Path

from ..errors import OutputTakenError
from ..untrusted import shown_path
from .atomic_json import patiently, sync_folder


def place_file(part: Path, target: Path) -> None:
    """Rename the file `part` to `target`, which must not exist.

    Raises:
        OutputTakenError: it does; `part` is beside it, under the name that the error tells.
    """
    _place(part, target, _rename_file)


def place_folder(part: Path, target: Path) -> None:
    """Rename the folder `part` to `target`, which must not exist or be an empty folder; as `place_file`."""
    _place(part, target, _rename_folder)


def _place(part: Path, target: Path, rename: Callable[[Path, Path], None]) -> None:
    for name in chain([target], _beside(target)):
        try:
            rename(part, name)
        except OSError:
            if not os.path.lexists(part) or not os.path.lexists(name):
                raise
            continue
        sync_folder(target.parent)
        if name != target:
            raise OutputTakenError(
                f"output: {shown_path(target)} was made by somebody else during the run. It is unchanged, "
                f"and the result is in {shown_path(name)}.",
                hint="Use it from there, or rename one of them.",
            )
        return


def _beside(target: Path) -> Iterator[Path]:
    return (target.with_name(f"{target.stem}-{number}{target.suffix}") for number in count(2))


def _rename_file(part: Path, target: Path) -> None:
    try:
        os.link(part, target)  # unlike a rename, it fails if there is something
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        target.open("xb").close()
        patiently(lambda: part.replace(target))
    else:
        patiently(part.unlink)


def _rename_folder(part: Path, target: Path) -> None:
    if os.name == "nt" and target.is_dir():
        target.rmdir()  # fails unless it is empty; other systems' rename does the same
    patiently(lambda: part.rename(target))
