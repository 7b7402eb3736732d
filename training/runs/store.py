"""The runs of one home folder: create, find, list, observe, delete.

runs/<run id>/       one folder per run                    requests/   see `request_index.py`
active/<run id>      an empty file per unfinished run, so that a status filter does not read every run
principals/          the runs of each principal of a server
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from ..clusters.description import Cluster, cluster_named
from ..clusters.job_table import JobTable
from ..clusters.slurm import cancel
from ..config.settings import PrincipalSettings
from ..config.specs import AnySpec
from ..errors import (
    ClusterError,
    ErrorRecord,
    InputError,
    NotWritableError,
    RunNotFoundError,
    StateError,
)
from ..events import Queued
from ..files.atomic_json import disk_full, is_disk_full, patiently, sync_folder, write_json
from ..files.principal_folder import forget_run, principal_folder
from ..files.private_folder import make_private
from ..files.system_error import system_error
from ..next_step import then
from ..untrusted import quoted, short_name
from .cluster_job import cluster_of, end_if_deaf, ended_by, is_gone, job_of, with_job
from .ended_attempt import interrupted, require_resumable, worker_is_gone
from .event_log import EventLog
from .folder import ENDED, FINISHED, OnCluster, RunFolder, RunState, Status
from .identity import boot_id, file_is_recent, host, is_run_id, new_run_id, now, same_host
from .kinds import KINDS, kind_of
from .locks import Lock
from .principal_room import require_free_disk, require_room
from .progress import progress_at_end

ABANDONED_S = 3600.0
OLD_S = 30 * 24 * 3600.0  # runs of a lasting kind, which lists do not show, are removed at this age
LEAVING_S = 5.0
LASTING = [kind.name for kind in KINDS.values() if kind.lasting]
PREPARING = ".new-"


class Folders(NamedTuple):
    """The folders among the runs.

    Args:
        ids: of the runs, newest first.
        foreign: names that no run has.
    """

    ids: list[str]
    foreign: list[str]


class RunStore:
    """The runs of one home folder, as one principal sees them: those of others do not exist.

    Args:
        principal: who asks; None: the owner of the home, who sees all.
        limits: what a principal may take.
        jobs: of clusters; None: a table of its own.
    """

    def __init__(
        self,
        home: Path,
        principal: str | None = None,
        limits: PrincipalSettings | None = None,
        jobs: JobTable | None = None,
    ) -> None:
        self.home = home
        self.principal = principal
        self.jobs = jobs or JobTable()
        self._limits = limits or PrincipalSettings()
        self._own = None if principal is None else principal_folder(home, principal)
        self.runs = home / "runs"
        self._active = home / "active"
        self.requests = home / "requests"

    # --- create -------------------------------------------------------------------------------------
    def create(self, spec: AnySpec, run_id: str | None = None) -> RunFolder:
        """A new run, durable on the disk when this returns.

        Raises:
            DiskFullError: the disk is full; nothing of the run is kept.
        """
        self.make_folders()
        run = RunFolder(self.runs / (run_id or new_id(spec)))
        part = RunFolder(self.runs / f"{PREPARING}{run.run_id}")
        marker = self._active / run.run_id
        try:
            self._take(run.run_id)
            part.path.mkdir(mode=0o700)
            write_json(part.path / "spec.json", spec.model_dump(mode="json"))
            part.write_state(
                RunState(
                    kind=spec.kind,
                    subject=spec.subject,
                    status=Status.QUEUED,
                    cluster=self._job_of(spec),
                    principal=self.principal,
                    host=host(),
                    boot_id=boot_id(),
                    created_at=now(),
                )
            )
            EventLog(part.events_path).append(Queued(run_id=run.run_id))
            marker.touch()
            sync_folder(self._active)
            patiently(lambda: part.path.rename(run.path))
            sync_folder(self.runs)
        except OSError as error:
            shutil.rmtree(part.path, ignore_errors=True)
            marker.unlink(missing_ok=True)
            forget_run(self.home, run.run_id)
            if is_disk_full(error):
                raise disk_full(run.path, error) from error
            raise
        return run

    def _job_of(self, spec: AnySpec) -> OnCluster | None:
        """Of a run for a Slurm; given hosts work for a process of this machine."""
        name = cluster_of(spec)
        return OnCluster(name=name) if name and isinstance(cluster_named(self.home, name), Cluster) else None

    def _take(self, run_id: str) -> None:
        """Record that a new run is the principal's, before the run exists."""
        if self._own is not None:
            make_private(self._own.parent)
            make_private(self._own)
            (self._own / run_id).touch()
            sync_folder(self._own)

    def bytes_taken(self) -> int:
        """Of a principal's runs; the owner's are not counted."""
        return 0 if self._own is None else sum(RunFolder(self.runs / run_id).size() for run_id in self.ids())

    def require_room(self, taken: int) -> None:
        """Refuse another run of a principal that has taken what it may take.

        Raises:
            QueueFullError: it has too many unfinished runs.
            DiskFullError: its runs are too large, or too little is free.
        """
        if self._own is None:
            return
        require_free_disk(self._limits, self.home)
        unfinished = sum(map(self._is_unfinished, self.unfinished()))
        require_room(self._limits, unfinished, taken)

    def _is_unfinished(self, run: RunFolder) -> bool:
        with suppress(StateError):
            return self.observe(run).status not in ENDED
        return False

    # --- find and list ------------------------------------------------------------------------------
    def find(self, part: str) -> RunFolder:
        """The run with this id, or with this unique part of an id.

        Raises:
            RunNotFoundError: no run, or several, match.
        """
        ids = self.ids()
        if part in ids:
            return RunFolder(self.runs / part)
        found = [run_id for run_id in ids if part and part in run_id]
        if len(found) == 1:
            return RunFolder(self.runs / found[0])
        shown = quoted(part)
        if not found:
            raise RunNotFoundError(f"No run matches {shown}.", next=then("list_runs"))
        raise RunNotFoundError(
            f"{shown} matches {len(found)} runs: {', '.join(found[:5])}{' …' if len(found) > 5 else ''}.",
            hint="Give more of the id.",
        )

    def ids(self) -> list[str]:
        """The id of every run that the principal may see, newest first."""
        return self.folders().ids

    def folders(self) -> Folders:
        """What the principal may see, except folders that are not whole: those begin with a dot.

        Only the owner sees what is no run.
        """
        if not self.runs.is_dir():
            return Folders([], [])
        with os.scandir(self.runs) as entries:
            names = [e.name for e in entries if not e.name.startswith(".") and _is_folder(e)]
        names.sort(reverse=True)
        if self._own is not None:
            own = {entry.name for entry in _entries(self._own)}
            return Folders([name for name in names if name in own], [])
        foreign = [name for name in names if not is_run_id(name)]
        return Folders([name for name in names if is_run_id(name)] if foreign else names, foreign)

    def changed(self) -> tuple[int, ...]:
        """Differs from an earlier value when a run has been made, has ended, or has been removed since."""
        paths = [self.runs, self._active, *_entries(self._active)]
        return tuple(time for path in paths if (time := _modified(path)))

    def newest(
        self, status: Status | None = None, ids: list[str] | None = None
    ) -> Iterator[tuple[RunFolder, RunState | StateError]]:
        """Runs and their observed states, newest first; reads one folder at a time.

        An error stands for the state of a run that cannot be read; not with a `status`.

        Args:
            ids: every run's id, from `folders`; None: read here.
        """
        for run_id in self._ids_with(status, ids):
            run = RunFolder(self.runs / run_id)
            try:
                state = self.observe(run)
            except StateError as error:
                if run.path.exists() and status is None:
                    yield run, error
                continue
            if status in {None, state.status}:
                yield run, state

    def fail_unstarted(self, run: RunFolder, attempt: int, error: ErrorRecord) -> None:
        """Record that a queued attempt failed, unless a worker has started it."""
        lock = run.lock()
        if not lock.try_acquire():
            return
        try:
            state = run.state()
            if state.attempt == attempt and state.status is Status.QUEUED and state.pid is None:
                failed = {"status": Status.FAILED, "error": error, "ended_at": now()}
                self.finish(run, state.model_copy(update=failed))
        finally:
            lock.release()

    def sweep(self) -> None:
        """Remove old inspections, and the remains of incomplete creations and deletions."""
        for entry in _entries(self.runs):
            with suppress(OSError):  # one that resists stays, and the others are swept
                self._sweep(entry)
        for marker in _entries(self._active):
            with suppress(OSError):
                if not (self.runs / marker.name).exists() and not file_is_recent(marker, ABANDONED_S):
                    marker.unlink(missing_ok=True)

    def _sweep(self, entry: Path) -> None:
        if entry.name.startswith(PREPARING):
            if not file_is_recent(entry, ABANDONED_S):
                shutil.rmtree(entry, ignore_errors=True)
        elif any(f"-{name}-" in entry.name for name in LASTING) and not file_is_recent(entry, OLD_S):
            self._remove_if_lasting(RunFolder(entry))

    def _remove_if_lasting(self, run: RunFolder) -> None:
        with suppress(StateError, InputError, OSError):
            if kind_of(run.state().kind).lasting:
                self.delete(run)

    def unfinished(self) -> list[RunFolder]:
        """The runs that have not completed, failed or been cancelled."""
        return [RunFolder(self.runs / run_id) for run_id in self._ids_with(Status.QUEUED)]

    def _ids_with(self, status: Status | None, ids: list[str] | None = None) -> list[str]:
        ids = self.ids() if ids is None else ids
        if status is None or status in FINISHED:
            return ids
        known = set(ids)
        return sorted((e.name for e in _entries(self._active) if e.name in known), reverse=True)

    # --- observe and end -----------------------------------------------------------------------------
    def observe(self, run: RunFolder) -> RunState:
        """The run's current state: the run of a dead worker or an ended job is recorded as interrupted.

        The recorded state of a run of another machine, or of a home that is read-only, is returned unchanged.

        Raises:
            RunFolderError: its folder cannot be read.
            StateError: its lock cannot be used.
        """
        state = run.state()
        if state.cluster is not None:
            return self._observe_job(run, state)
        with suppress(NotWritableError):
            if worker_is_gone(run, state):
                return self._end(run, state, lambda now: interrupted(run.run_id, now))
        return state

    def _observe_job(self, run: RunFolder, state: RunState) -> RunState:
        job = job_of(run, state, self.jobs)
        if job is None:
            return state
        with suppress(NotWritableError):
            if is_gone(job):
                return self._end(run, state, lambda now: ended_by(run, now, job))
            end_if_deaf(run, job, self.jobs)
        return with_job(state, job)

    def _end(self, run: RunFolder, seen: RunState, end: Callable[[RunState], RunState]) -> RunState:
        """Record the end of an attempt for its dead worker, unless somebody else does or has done so."""
        lock = run.lock()
        if not lock.try_acquire():
            return run.state()
        try:
            state = run.state()  # it may have ended since it was read
            if state.status in ENDED or state.attempt != seen.attempt:
                return state
            run.discard_parts()
            return self.finish(run, end(state))
        finally:
            lock.release()

    def cancel_waiting(self, run: RunFolder, state: RunState) -> None:
        """End the run of a job that waits, after a request to stop, as no worker sees that.

        Args:
            state: as `observe` returns it.
        """
        if state.cluster is None or state.cluster.job_id is None or state.status is not Status.QUEUED:
            return
        with suppress(ClusterError):  # once it has begun, the worker sees the request as well
            cancel(state.cluster.job_id, only_waiting=True)
        self.jobs.forget()
        self.observe(run)

    def finish(self, run: RunFolder, state: RunState) -> RunState:
        """Record how a run ended. Only the holder of the run's lock may call this."""
        state = state.model_copy(update={"progress": progress_at_end(run, state)})
        run.write_state(state)
        if state.status in FINISHED:
            (self._active / run.run_id).unlink(missing_ok=True)
        return state

    def requeue(
        self,
        run: RunFolder,
        attempt: int,
        *,
        allow_other_base: bool = False,
        dataset: str | list[str] | None = None,
        gpus: int | str | None = None,
    ) -> RunState | None:
        """Queue an ended run again, as its next attempt; None if another process has done so since.

        Args:
            attempt: the one that has ended.
            allow_other_base: of the next attempt only; see `RunState`.
            dataset: where it is now; None: where it was.
            gpus: None: as many as before.

        Raises:
            InputError: it is running, has completed, or belongs to another machine.
            RunFolderError: it has been removed.
        """
        lock = run.lock()
        if not lock.try_acquire(LEAVING_S):  # a worker that has recorded the end may still be exiting
            run.state()  # raises if it has been removed
            raise InputError(f"Run {run.run_id} is running.", next=then("cancel", run_id=run.run_id))
        try:
            state = run.state()
            if state.attempt != attempt or state.status not in ENDED:
                return None
            require_resumable(run, state)
            self.require_room(self.bytes_taken())
            run.forget_cancel()
            run.event_log().append(Queued(attempt=state.attempt + 1))
            (self._active / run.run_id).touch()
            state = state.model_copy(
                update={
                    "status": Status.QUEUED,
                    "attempt": state.attempt + 1,
                    "allow_other_base": allow_other_base,
                    "dataset": dataset or state.dataset,
                    "gpus": gpus or state.gpus,
                    "cluster": state.cluster and OnCluster(name=state.cluster.name),
                    "boot_id": boot_id(),
                    "pid": None,
                    "queued_at": now(),
                    "ended_at": None,
                    "error": None,
                    "result": None,
                }
            )
            run.write_state(state)
            return state
        finally:
            lock.release()

    def undo_requeue(self, run: RunFolder, before: RunState) -> None:
        """Put a run that could not be queued back to how it had ended; a worker that has it keeps it."""
        lock = run.lock()
        if not lock.try_acquire():
            return
        try:
            self.finish(run, before)
        finally:
            lock.release()

    # --- remove -------------------------------------------------------------------------------------
    def delete(self, run: RunFolder) -> None:
        """Remove a run permanently.

        Raises:
            InputError: it is still queued or running, or belongs to another machine.
            RunNotFoundError: it has been removed.
        """
        # No worker can hold a lock that is a folder.
        lock = run.lock() if run.path.is_dir() and not run.lock_path.is_dir() else None
        self.require_ended(run)
        if lock is not None:
            self._require_no_worker(run, lock)
        try:
            self._remove(run)
        except FileNotFoundError as error:
            raise RunNotFoundError(f"Run {run.run_id} has been removed.", next=then("list_runs")) from error

    def _require_no_worker(self, run: RunFolder, lock: Lock) -> None:
        """Refuse to remove a run that a worker has, or that was resumed while we waited for its lock."""
        if not lock.try_acquire(LEAVING_S) and run.path.exists():
            raise InputError(
                f"The worker of run {run.run_id} is still running.",
                hint="Wait until it has exited, then try again.",
            )
        lock.release()  # Windows moves no folder with a file in it that is open
        self.require_ended(run)

    def require_ended(self, run: RunFolder) -> None:
        """Raises InputError if the run is still queued or running; an unreadable one has ended."""
        with suppress(StateError):
            state = self.observe(run)
            if state.status not in ENDED:
                name = short_name(state.host.partition("~")[0])
                where = "first" if state.cluster or same_host(state.host) else f"on {name} first"
                raise InputError(
                    f"Run {run.run_id} is {state.status} on {name}.",
                    hint=f"Cancel it {where}.",
                    next=then("cancel", run_id=run.run_id),
                )

    def delete_unstarted(self, run: RunFolder) -> None:
        """Remove a run that could not join the queue."""
        self._remove(run)

    def _remove(self, run: RunFolder) -> None:
        doomed = run.path.with_name(f"{PREPARING}gone-{run.run_id}")
        patiently(lambda: run.path.rename(doomed))  # a half-deleted run must not look like a run
        shutil.rmtree(doomed)
        (self._active / run.run_id).unlink(missing_ok=True)
        forget_run(self.home, run.run_id)

    def make_folders(self) -> None:
        """Make what is missing of the home's folders, closed to others."""
        try:
            for folder in (self.home, self.runs, self._active, self.requests):
                make_private(folder)
        except OSError as error:
            raise system_error(error, self.home) from error


def new_id(spec: AnySpec) -> str:
    """An id for a run of this kind, with the time and its subject in it."""
    return new_run_id(spec.subject if spec.kind == "train" else spec.kind.replace("_", "-"))


def _entries(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def _modified(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _is_folder(entry: os.DirEntry[str]) -> bool:
    with suppress(OSError):  # a link to itself
        return entry.is_dir()
    return False
