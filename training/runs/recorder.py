"""Records a run while it is executed: events, state and result."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..config.results import AnyResult
from ..errors import (
    BackpropagateError,
    DiskFullError,
    ErrorRecord,
    MissingExtraError,
    RunInterruptedError,
    RuntimeFailure,
)
from ..events import Done, Event, Failed, Phase, Step, Warned
from ..files.atomic_json import is_disk_full
from ..logs import logger
from ..redact import scrub, scrub_all
from ..untrusted import one_line, shown_path
from .event_log import all_events
from .folder import ENDED, OnCluster, RunFolder, RunState, Status
from .identity import boot_id, host, now
from .start_up import StartUp
from .store import RunStore

TRAIN_MODULES = frozenset({"torch", "transformers", "peft", "trl", "datasets", "accelerate", "numpy"})
BALLAST_BYTES = 64 * 1024  # freed when the disk is full, so that the end can still be written


BeforeEnd = Callable[[Status, AnyResult | None, ErrorRecord | None], AnyResult | None]


class RunRecorder:
    """The only writer of a run; created by the holder of the run's lock.

    All methods are thread-safe; nothing is written after the run has ended.

    Args:
        listener: called with each event after it has been written.

    Attributes:
        devices: what the run has, once it has them: GPUs' UUIDs, or `cpu`.
        stop_reason: why the run has to stop though the user did not ask; then it has failed.
        paused_s: seconds that the work has waited for its device to cool.
        start_up: where the time before the first step went.
        before_end: told how the run ends, before that is recorded; returns the result to record.
    """

    def __init__(
        self, store: RunStore, run: RunFolder, listener: Callable[[Event], None] | None = None
    ) -> None:
        self.run = run
        self._store = store
        self._listener = listener
        self._events = run.event_log()
        self._ballast = run.path / ".ballast"
        self._lock = threading.Lock()
        self._state = run.state()
        self.phase_name = "starting"
        self._warnings: list[str] = []
        self.first_loss = _first_loss(run)
        self.devices: tuple[str, ...] = ()
        self.stop_reason: BackpropagateError | None = None
        self.paused_s = 0.0
        self.start_up = StartUp()
        self.before_end: BeforeEnd | None = None
        self.log = logger().bind(run_id=run.run_id)

    def begin(self, *, survives_client: bool = True, attended: bool = False) -> None:
        """Record that this process executes the run.

        Args:
            survives_client: whether it does.
            attended: whether a process of another host has the run and its lock, and lives as long.
        """
        self._ballast.write_bytes(os.urandom(BALLAST_BYTES))
        if not attended:
            self._change(
                pid=os.getpid(),
                boot_id=boot_id(),
                host=host(),
                survives_client=survives_client,
                cluster=_with_own_job(self._state.cluster),
            )
        self.log.info("run_started", attempt=self._state.attempt)
        self.phase("starting", "starting the worker")

    def running(self, *devices: str) -> None:
        """Record that the run has its devices; none if it needs none."""
        self.devices = devices
        self._change(status=Status.RUNNING, started_at=now())

    def report(self, event: Event) -> None:
        """Record an event of the work."""
        self.start_up.see(event)
        match event:
            case Phase(phase=phase):
                self.phase_name = phase
            case Warned(message=message):
                self.log.warning("run_warning", message=message)
                self._warnings.append(one_line(scrub(message)))
            case Step(loss=loss) if self.first_loss is None:
                self.first_loss = loss
            case _:
                pass
        with self._lock:
            if self.finished:
                return
            event = self._events.append(event)
        if self._listener:
            self._listener(event)

    def phase(self, phase: str, message: str) -> None:
        self.report(Phase(phase=phase, message=message))

    def warn(self, message: str) -> None:
        self.report(Warned(message=message))

    def keep(self, result: AnyResult) -> None:
        """Record the result early: if the worker dies after this, the run has not failed."""
        self._change(result=result)

    def completed(self, result: AnyResult) -> None:
        if self.stop_reason:  # what was left to do after the result is missing
            self.warn(self.stop_reason.message)
        self._finish(Status.COMPLETED, result, None)

    def cancelled(self, result: AnyResult | None) -> None:
        """Record that the run has stopped: as the user asked, or for the reason that there is."""
        if self.stop_reason:
            self.failed(self.stop_reason, result)
        self._finish(Status.CANCELLED, result, None)

    def failed(self, error: BaseException, result: AnyResult | None = None) -> None:
        """Record that the run failed, and what of its result there is."""
        record = as_record(error, self.run.log_path)
        self.log.error("run_failed", code=record.code, message=record.message)
        interrupted = isinstance(error, RunInterruptedError)  # it can be resumed as it is
        self._finish(Status.INTERRUPTED if interrupted else Status.FAILED, result, record)

    def require_end(self) -> None:
        """Raises RuntimeFailure if the work returned without recording how the run ended."""
        if not self.finished:
            raise RuntimeFailure(
                f"The worker of run {self.run.run_id} returned without a result.",
                hint=f"This is an error of backpropagate; {shown_path(self.run.log_path)} may say more.",
            )

    def working_s(self) -> float:
        """A clock that stands still while the work waits for its device to cool."""
        return time.monotonic() - self.paused_s

    @property
    def attempt(self) -> int:
        return self._state.attempt

    @property
    def finished(self) -> bool:
        return self._state.status in ENDED

    def _change(self, **fields: Any) -> None:
        with self._lock:
            self._state = self._state.model_copy(update=fields)
            self.run.write_state(self._state)

    def _finish(self, status: Status, result: AnyResult | None, error: ErrorRecord | None) -> None:
        with self._lock:
            before_end, self.before_end = self.before_end, None
        if before_end and not self.finished:
            result = before_end(status, result or self._state.result, error)
        with self._lock:
            if self.finished:
                return
            end = self._state.model_copy(
                update={
                    "status": status,
                    "result": result or self._state.result,
                    "warnings": self._warnings,
                    "error": error,
                    "ended_at": now(),
                }
            )
            try:
                last = self._write_end(end)
            except OSError as cause:
                if not is_disk_full(cause) and not isinstance(cause, DiskFullError):
                    raise
                self._ballast.unlink(missing_ok=True)
                last = self._write_end(end)
            self._ballast.unlink(missing_ok=True)
        if self._listener:
            self._listener(last)

    def _write_end(self, end: RunState) -> Event:
        """Events and log are written first, so that a reader of the new state finds all of them."""
        ended = (
            Failed(status=end.status.value, error=end.error) if end.error else Done(status=end.status.value)
        )
        event = self._events.append(ended)
        self.log.info("run_ended", status=end.status.value)
        self._state = self._store.finish(self.run, end)
        return event


def _with_own_job(cluster: OnCluster | None) -> OnCluster | None:
    """With the id of the job that this process is."""
    job_id = os.environ.get("SLURM_JOB_ID")
    return cluster.model_copy(update={"job_id": job_id}) if cluster and job_id else cluster


def _first_loss(run: RunFolder) -> float | None:
    """The first loss of an earlier attempt."""
    return next((event.loss for event in all_events(run.events_path) if isinstance(event, Step)), None)


def as_record(error: BaseException, log_path: Path) -> ErrorRecord:
    """Any exception as an error for users; an unexpected one points to the log.

    The text of an unexpected error is a library's, and may contain what a file or a model folder says.
    """
    if isinstance(error, BackpropagateError):
        record = error.record()
        texts = record.model_dump(include={"message", "hint", "untrusted_details"})
        return record.model_copy(update=scrub_all(texts))
    if is_disk_full(error):
        return DiskFullError(
            "No space left on the disk.",
            hint="Free disk space, then resume the run.",
            untrusted=scrub(str(error)),
        ).record()
    if isinstance(error, ModuleNotFoundError) and error.name in TRAIN_MODULES:
        return MissingExtraError(
            f"Training needs {error.name}, which is not installed.",
            hint='pip install "backpropagate-mcp[train]"',
        ).record()
    return RuntimeFailure(
        f"The run ended with an unexpected {type(error).__name__}.",
        hint=f"Details are in {shown_path(log_path)}.",
        untrusted=scrub(str(error)),
    ).record()
