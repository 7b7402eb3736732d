"""A new file of JSON Lines, which appears when it is complete."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...files.new_name import place_file
from ...untrusted import shown_path

Write = Callable[[Mapping[str, Any]], None]


def require_new(*targets: Path) -> None:
    """Raises InputError if a file exists, or two are the same."""
    for target in targets:
        if os.path.lexists(target) or targets.count(target) > 1:
            used = "already exists" if os.path.lexists(target) else "is given twice"
            raise InputError(f"output: {shown_path(target)} {used}.", hint="Give a name that is not in use.")


@contextmanager
def new_jsonl(target: Path) -> Generator[Write]:
    """Gives a function that writes one row; an error leaves no file.

    Raises:
        OutputTakenError: somebody made the file in the meantime.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with part.open("w", encoding="utf-8", errors="backslashreplace", newline="\n") as file:
            yield lambda row: print(json.dumps(row, ensure_ascii=False, default=str), file=file)
        place_file(part, target)
    finally:
        part.unlink(missing_ok=True)
