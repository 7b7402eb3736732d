"""One run's folder and its state.

spec.json    the request; never changes            state.json   status, times, result or error
plan.json    all choices, with reasons             events.jsonl the events of the run
parts.json   temporary files of an export          worker.lock  locked while a worker runs
adapter/     the trained adapter                   worker.log   output of the worker and its libraries
control.json a request to stop
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager, suppress
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    ValidationError,
    model_validator,
)

from ..config.arguments import explain
from ..config.fields import Gpus
from ..config.results import AnyResult
from ..config.specs import AnySpec, KindName, TrainingSpec, read_spec
from ..errors import ErrorRecord, RunFolderError, StateError
from ..events import Event
from ..files.atomic_json import read_json, write_json
from ..next_step import then
from ..untrusted import one_line
from .event_log import EventLog, latest_events, read_events
from .identity import require_moment
from .locks import Lock

Value = TypeVar("Value")


class Status(StrEnum):
    """The status of a run."""

    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"


FINISHED = frozenset({Status.COMPLETED, Status.FAILED, Status.CANCELLED})
ENDED = FINISHED | {Status.INTERRUPTED}


Moment = Annotated[str, AfterValidator(require_moment)]


class Progress(BaseModel):
    """How far a run has come."""

    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)

    step: int = 0
    total_steps: int | None = None
    loss: float | None = None


class OnCluster(BaseModel):
    """The job of a run that a Slurm carries out.

    Args:
        name: the cluster's, in clusters.toml.
        slurm: the name of the Slurm that it was submitted to; None before that.
        job_id: None until somebody knows it.
        waits_for: why the job waits, in Slurm's word; only in states that were observed.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)

    name: str
    slurm: str | None = None
    job_id: str | None = None
    waits_for: str | None = None


class RunState(BaseModel):
    """state.json. `pid` is information for people: no process is ever stopped by its pid.

    Args:
        subject: the model that the run is about, from its spec; None in older runs.
        progress: of a run that has ended, so that a list reads no other file of it; None in older runs.
        allow_other_base: whether this attempt may use a base that has changed since the training began.
        dataset: where the dataset is, if it has been moved since the run began.
        gpus: of this attempt, if it was resumed on another number than it asked for.
        cluster: where its job is, if a Slurm carries it out.
        principal: who asked for it over HTTP; None: the owner of the home.
        result: of the run's kind; None until it exists.
        warnings: all warnings of the run, after it has ended.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)

    format_version: int = 1
    kind: KindName = "train"
    subject: str | None = None
    status: Status
    attempt: Annotated[int, Field(ge=1, lt=2**31)] = 1
    allow_other_base: bool = False
    dataset: str | list[str] | None = None
    gpus: Gpus | None = None
    cluster: OnCluster | None = None
    principal: str | None = None
    host: str
    boot_id: str
    pid: Annotated[int, Field(ge=0, lt=2**32)] | None = None
    survives_client: bool = True
    created_at: Moment
    queued_at: Moment | None = None
    started_at: Moment | None = None
    ended_at: Moment | None = None
    result: Annotated[AnyResult, Discriminator("kind")] | None = None
    warnings: list[str] = []
    error: ErrorRecord | None = None
    progress: Progress | None = None

    @model_validator(mode="before")
    @classmethod
    def _read_older_form(cls, record: Any) -> Any:
        """Version 0.1 had no `kind` in the result, and the warnings in it."""
        if not isinstance(record, dict) or not isinstance(record.get("result"), dict):  # pyright: ignore[reportUnknownMemberType]
            return record  # pyright: ignore[reportUnknownVariableType]
        values: dict[str, Any] = {"warnings": [], **record}  # pyright: ignore[reportUnknownArgumentType]
        result: dict[str, Any] = dict(values["result"])
        values["warnings"] = values["warnings"] or result.pop("warnings", [])
        values["result"] = {"kind": values.get("kind", "train"), **result} if result else None
        return values

    @model_validator(mode="after")
    def _require_own_result(self) -> RunState:
        if self.result is not None and self.result.kind != self.kind:
            raise ValueError(f"result is of a run of kind {self.result.kind}, and the run is of {self.kind}")
        return self


class _RunLock(Lock):
    """Of a run that may have been removed meanwhile: nobody gets its lock."""

    def _acquire(self, timeout_s: float) -> bool:
        folder = self.path.parent
        try:
            if not folder.exists() or not super()._acquire(timeout_s):
                return False
            if [path.name for path in folder.iterdir()] != [self.path.name]:
                return True
        except (StateError, OSError):  # also of a folder that goes meanwhile
            if folder.exists():
                raise
        self.release()
        with suppress(OSError):  # removed at this moment: taking the lock has made its folder anew
            self.path.unlink()
            folder.rmdir()
        return False


class RunFolder:
    """The files of one run. Nothing is cached: every read is from the disk."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def run_id(self) -> str:
        return self.path.name

    @property
    def events_path(self) -> Path:
        return self.path / "events.jsonl"

    @property
    def adapter_path(self) -> Path:
        return self.path / "adapter"

    @property
    def checkpoints_path(self) -> Path:
        return self.path / "checkpoints"

    @property
    def log_path(self) -> Path:
        return self.path / "worker.log"

    @property
    def control_path(self) -> Path:
        return self.path / "control.json"

    @property
    def lock_path(self) -> Path:
        return self.path / "worker.lock"

    def size(self) -> int:
        """Bytes of all files in it; of links, their own. What is removed meanwhile has none."""
        total = 0
        for folder, _, names in os.walk(self.path):
            for name in names:
                with suppress(OSError):
                    total += os.lstat(os.path.join(folder, name)).st_size
        return total

    def lock(self) -> Lock:
        """The lock that a worker holds until it exits; its holder is the only writer of the run."""
        return _RunLock(self.lock_path)

    def spec(self) -> AnySpec:
        """The request.

        Raises:
            RunFolderError: spec.json is missing or unreadable.
        """
        return self._read("spec.json", read_spec)

    def request_now(self) -> AnySpec:
        """The request with its dataset where it is now, and the GPUs of this attempt.

        Raises as `spec` and `state`.
        """
        spec, state = self.spec(), self.state()
        if not isinstance(spec, TrainingSpec):
            return spec
        if state.dataset is not None:
            spec = spec.model_copy(update={"data": spec.data.model_copy(update={"source": state.dataset})})
        if state.gpus is not None:
            spec = spec.model_copy(update={"training": spec.training.model_copy(update={"gpus": state.gpus})})
        return spec

    def state(self) -> RunState:
        """The content of state.json; `RunStore.observe` also checks that the worker is alive.

        Raises:
            RunFolderError: state.json is missing or unreadable.
        """
        return self._read("state.json", RunState.model_validate)

    def write_state(self, state: RunState) -> None:
        write_json(self.path / "state.json", state.model_dump(mode="json"))

    def plan(self) -> dict[str, Any] | None:
        """plan.json, or None if there is none; RunFolderError if it cannot be read."""
        return self._record("plan.json")

    def provenance(self) -> dict[str, Any] | None:
        """provenance.json, as `plan`."""
        return self._record("provenance.json")

    def base_revision(self) -> str | None:
        """The commit of the Hub model that was trained on, where it is known."""
        revision = self.trained_model().get("revision")
        return revision if isinstance(revision, str) else None

    def trained_model(self) -> dict[str, Any]:
        """What provenance.json says of the base model; empty where it says nothing."""
        model: Any = (self.provenance() or {}).get("model")
        return cast("dict[str, Any]", model) if isinstance(model, dict) else {}

    def events(self, offset: int = 0) -> tuple[list[Event], int]:
        """The events from byte `offset` on, and the offset after them; see `read_events`.

        Raises:
            RunFolderError: events.jsonl is not a file that can be read.
        """
        with self._readable("events.jsonl"):
            return read_events(self.events_path, offset)

    def event_log(self) -> EventLog:
        """The writer of the events, for the holder of the lock; RunFolderError as `events`."""
        with self._readable("events.jsonl"):
            return EventLog(self.events_path)

    def latest_events(self) -> list[Event]:
        """The newest events; RunFolderError as `events`."""
        with self._readable("events.jsonl"):
            return latest_events(self.events_path)

    def _record(self, name: str) -> dict[str, Any] | None:
        path = self.path / name
        return self._read(name, lambda record: record) if path.exists() or path.is_symlink() else None

    def _read(self, name: str, parse: Callable[[dict[str, Any]], Value]) -> Value:
        """The one way to read a record of a run: every kind of damage is a RunFolderError."""
        with self._readable(name):
            return parse(read_json(self.path / name, follow_links=False))

    @contextmanager
    def _readable(self, name: str) -> Generator[None]:
        try:
            yield
        except (OSError, ValueError, TypeError, OverflowError, RecursionError) as error:
            raise self._unreadable(name, error) from error

    def write_plan(self, plan: dict[str, Any]) -> None:
        write_json(self.path / "plan.json", plan)

    def write_parts(self, parts: Iterable[Path]) -> None:
        """Record the temporary files that an export writes outside this folder."""
        write_json(self.path / "parts.json", {"parts": [str(part) for part in parts]})

    def discard_parts(self) -> None:
        """Remove the temporary files of a killed worker; version 0.1 named them in plan.json.

        Only what has the run's id in its name: the record could name anything.
        """
        with suppress(RunFolderError, OSError, TypeError):
            noted = self._record("parts.json") or self.plan() or {}
            for part in map(Path, noted.get("parts", [])):
                if not part.name.startswith(".") or f".{self.run_id}.part" not in part.name:
                    continue
                if part.is_dir() and not part.is_symlink():
                    shutil.rmtree(part)
                else:
                    part.unlink(missing_ok=True)

    def write_provenance(self, provenance: dict[str, Any]) -> None:
        write_json(self.path / "provenance.json", provenance)

    def request_cancel(self, reason: str) -> None:
        """Ask the worker to stop; it checks for this file several times a second."""
        write_json(self.control_path, {"cancel": True, "reason": reason})

    def forget_cancel(self) -> None:
        """Remove the request to stop, for a run that is resumed."""
        self.control_path.unlink(missing_ok=True)

    def cancel_requested(self) -> bool:
        return self.control_path.exists()

    def _unreadable(self, name: str, error: Exception) -> RunFolderError:
        if not self.path.is_dir():
            return RunFolderError(f"Run {self.run_id} has been removed.", next=then("list_runs"))
        return RunFolderError(
            f"{self.path / name} cannot be read ({one_line(_first_line(error), 300)}).",
            hint="Restore the file, or remove the run.",
            next=then("delete", run_id=self.run_id),
            cause=error,
        )


def _first_line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return explain(error).rstrip(".")
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
