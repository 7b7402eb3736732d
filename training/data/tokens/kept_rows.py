"""The rows of a task that its run folder keeps: the cache of tokens forgets, and datasets change.

A later multi-run that adds tasks scores the earlier ones on them, and an export is measured on them.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, zip_longest
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from ...errors import RunFolderError
from ...files.atomic_json import read_json, write_json
from ...next_step import then
from ...untrusted import shown_path
from .example import Example

TASKS = "tasks"
"""The folder of all tasks' rows, in a run folder."""
MOST_REPLAYABLE = 200
MOST_HASHES = 1_000_000
"""Of a task's training rows; of more rows, the others are not found in later datasets."""


class KeptRows(BaseModel):
    """The rows of one task.

    Args:
        scored: examples that the task is scored on.
        scored_on: `training` if the task has no held-out rows.
        replayable: some of the examples that its run trained on.
        held_out, trained: content hashes of all its rows, by which they are found in other datasets.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)

    format_version: Literal[1] = 1
    name: str
    scored_on: Literal["held_out", "training"]
    scored: list[Example]
    replayable: list[Example] = []
    held_out: list[str] = []
    trained: list[str] = []

    def write(self, folder: Path, number: int) -> None:
        """Write them as task `number`.

        Raises:
            DiskFullError: there is no space.
        """
        folder.mkdir(exist_ok=True)
        write_json(path_of(folder, number), self.model_dump(mode="json"))


def in_turn(tasks: Sequence[Sequence[Example]]) -> list[Example]:
    """The rows of all tasks, one of each in turn, so that a part of them has rows of every task."""
    return [row for row in chain.from_iterable(zip_longest(*tasks)) if row is not None]


def path_of(folder: Path, number: int) -> Path:
    return folder / f"task-{number:03d}.json"


def read_kept_rows(folder: Path, number: int) -> KeptRows:
    """The rows of task `number`, from 1.

    Raises:
        RunFolderError: they are missing or cannot be read.
    """
    path = path_of(folder, number)
    try:
        return KeptRows.model_validate(read_json(path, follow_links=False))
    except (OSError, ValueError, ValidationError) as error:
        raise RunFolderError(
            f"{shown_path(path)} cannot be read: {type(error).__name__}.",
            hint="The scores of this task cannot be continued without its rows: restore the file.",
            next=then("get_run", run_id=folder.parent.name),
            cause=error,
        ) from error
