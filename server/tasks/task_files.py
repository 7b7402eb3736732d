"""The tasks of a home of runs: one small file for each, so that they outlive the server that made them."""

from __future__ import annotations

import re
import secrets
from contextlib import suppress
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from ...training.files.atomic_json import read_json, write_json
from ...training.files.private_folder import make_private
from ...training.runs.identity import file_is_recent, now
from ...training.runs.view import RunView
from .protocol import Task

KEPT_S = 14 * 24 * 3600
"""From the last change of the file: a task is known for at least this time after it was made."""

ID_BYTES = 24
TASK_ID = re.compile(r"[A-Za-z0-9_-]{32}")  # what `token_urlsafe` makes of them; never a path


class TaskRecord(BaseModel):
    """Which attempt of which run carries out the call of a task.

    Args:
        principal: who made the call; None: the owner of the home.
        note: what the call had to say besides its run.
        end: the task's end as it was first told. The run may be resumed after it; the task stays as it was.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)

    task_id: str
    run_id: str
    attempt: int
    tool: str
    principal: str | None
    note: str | None
    created_at: str
    end: Task | None = None


class TaskFiles:
    """Writes and reads the records in one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def create(self, run: RunView, tool: str, principal: str | None, note: str | None) -> TaskRecord:
        """A new record of the run's attempt, on the disk.

        Raises:
            BackpropagateError, OSError: it cannot be written.
        """
        make_private(self._folder)
        self._sweep()
        record = TaskRecord(
            task_id=secrets.token_urlsafe(ID_BYTES),
            run_id=run.run_id,
            attempt=run.attempt,
            tool=tool,
            principal=principal,
            note=note,
            created_at=now(),
        )
        self.write(record)
        return record

    def write(self, record: TaskRecord) -> None:
        """Replace the record durably; raises as `create`."""
        write_json(self._path(record.task_id), record.model_dump(mode="json"))

    def find(self, task_id: str, principal: str | None) -> TaskRecord | None:
        """The record, unless it is another principal's, too old, or no record."""
        if not TASK_ID.fullmatch(task_id) or not file_is_recent(self._path(task_id), KEPT_S):
            return None
        with suppress(OSError, ValueError, ValidationError):
            record = TaskRecord.model_validate(read_json(self._path(task_id), follow_links=False))
            if principal in {None, record.principal}:
                return record
        return None

    def _sweep(self) -> None:
        for path in self._folder.glob("*.json"):
            with suppress(OSError):
                if not file_is_recent(path, KEPT_S):
                    path.unlink(missing_ok=True)

    def _path(self, task_id: str) -> Path:
        return self._folder / f"{task_id}.json"
