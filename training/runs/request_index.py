"""Which run each request has, so that an equal request finds it instead of starting another one.

Beside `runs/` lies `requests/`, with a record of each client's key and of each request's fingerprint.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from ..config.specs import AnySpec
from ..errors import RequestKeyReusedError, StateError
from ..files.atomic_json import read_json, write_json
from ..next_step import then
from ..untrusted import quoted, shown_path
from .folder import ENDED, RunFolder, RunState, Status
from .identity import file_is_recent, is_recent, is_run_id
from .kinds import kind_of
from .locks import Lock
from .store import ABANDONED_S, RunStore, new_id

EQUAL_WINDOW_S = 120.0  # an equal request returns a completed run for this long


class Requested(NamedTuple):
    """The run of a request.

    Args:
        existing: whether an earlier request created it.
        stopped: the run of an earlier equal request, if it was stopped and could be resumed.
        by_key: whether the request's key was known.
        repeated: whether the request demands a new run, and is taken as a repetition of the one that did.
    """

    run: RunFolder
    existing: bool
    stopped: RunFolder | None = None
    by_key: bool = False
    repeated: bool = False


class RequestIndex:
    """The requests of a home folder, as the principal of `store` makes them."""

    def __init__(self, store: RunStore) -> None:
        self._store = store
        self._folder = store.requests

    def run_for(
        self,
        spec: AnySpec,
        key: str | None,
        fingerprint: str,
        find_equal: bool,
        instead_of: RunFolder | None = None,
        repeats_s: float = 0,
        approve: Callable[[], None] | None = None,
    ) -> Requested:
        """The existing run of this request, or a new one. The run can be found by both names afterwards.

        Args:
            key: the client's name for the request; always returns its run, unless that failed.
            fingerprint: hash of the whole request.
            find_equal: unless the key is known, return a run of the same fingerprint that is queued, running,
                or completed (for a training within two minutes).
            instead_of: a run that is not returned, since what it made is gone.
            repeats_s: without a key and `find_equal`, return the run of an equal request of this kind that is
                less than so many seconds old.
            approve: called before a new run is made, which it may refuse.

        Raises:
            RequestKeyReusedError: the key was used with other arguments.
        """
        self._store.make_folders()
        equal_path = self._folder / f"equal-{self._private(fingerprint)}.json"
        key_path = self._folder / f"key-{_hash(self._private(key))}.json" if key else None
        taken = self._store.bytes_taken()  # here: others do not wait until all is counted
        with Lock(self._folder / "lock"):
            named = self._run_of_key(key, key_path, spec) if key and key_path else None
            if named and self._keeps_key(named) and not _is_same(named, instead_of):
                return Requested(named, existing=True, by_key=True)
            equal = self._requested_or_none(equal_path) if find_equal else None
            if equal and self._is_reusable(equal) and not _is_same(equal, instead_of):
                if key_path:
                    write_json(key_path, {"run_id": equal.run_id})
                return Requested(equal, existing=True)
            repeated = None if key or find_equal else self._repeated(equal_path, repeats_s)
            if repeated:
                return Requested(repeated, existing=True, repeated=True)
            self._store.require_room(taken)
            if approve:
                approve()
            # The record is written first: it may name a run that does not exist, but every run has a record.
            run_id = new_id(spec)
            for path in filter(None, (key_path, equal_path)):
                write_json(path, {"run_id": run_id, "demanded": not (find_equal or key)})
            stopped = equal if equal and self._was_stopped(equal) else None
            return Requested(self._store.create(spec, run_id), existing=False, stopped=stopped)

    def sweep(self) -> None:
        """Remove the records of runs that are gone, unless somebody uses them or the home is read-only."""
        lock = Lock(self._folder / "lock")  # a request may find its record at any time
        with suppress(StateError, OSError):
            if self._folder.is_dir() and lock.try_acquire():
                try:
                    self._remove_what_names_no_run()
                finally:
                    lock.release()

    def _remove_what_names_no_run(self) -> None:
        for record in self._folder.glob("*.json"):
            if self._names_no_run(record):
                record.unlink(missing_ok=True)

    def _names_no_run(self, record: Path) -> bool:
        """Of a record that no request has just written. A damaged one stays: its key starts no second run."""
        if file_is_recent(record, ABANDONED_S):
            return False
        with suppress(StateError):
            return self._requested(record) is None
        return False

    def _private(self, name: str) -> str:
        """The name of a request, which means another run to each principal."""
        return name if self._store.principal is None else _hash(f"{self._store.principal}\n{name}")

    def _run_of_key(self, key: str, path: Path, spec: AnySpec) -> RunFolder | None:
        run = self._requested(path)
        if run and run.spec().arguments() != spec.arguments():
            raise RequestKeyReusedError(
                f"request_key {quoted(key)} belongs to run {run.run_id}, which had other arguments.",
                hint="Use a new request_key for a new request, or the same arguments to find that run.",
            )
        return run

    def _requested(self, path: Path) -> RunFolder | None:
        """The run that a record names, if there is one.

        Raises:
            StateError: the record is damaged: a key must not start its run a second time.
        """
        if not path.exists():
            return None
        try:
            run_id = str(read_json(path)["run_id"])
        except (OSError, ValueError, KeyError):
            run_id = ""
        if not is_run_id(run_id):
            raise StateError(
                f"{shown_path(path)} cannot be read: the run of this request_key is not known.",
                hint="Look for the run in the list; then remove the file, or use another request_key.",
                next=then("list_runs"),
            )
        run = RunFolder(self._store.runs / run_id)
        return run if run.path.is_dir() else None

    def _requested_or_none(self, path: Path) -> RunFolder | None:
        with suppress(StateError):
            return self._requested(path)
        return None

    def _repeated(self, path: Path, seconds: float) -> RunFolder | None:
        """The run that an equal request has just demanded, unless it failed or is stopped."""
        if not seconds or not path.exists():
            return None
        with suppress(StateError, OSError, ValueError):
            run = self._requested(path)
            if run is None or not read_json(path).get("demanded"):
                return None
            if self._is_reusable(run) and is_recent(run.state().created_at, seconds):
                return run
        return None

    def _keeps_key(self, run: RunFolder) -> bool:
        """Whether a key returns this run; after a failure the same request starts a new one.

        Raises:
            RunFolderError: the run cannot be read.
        """
        return self._store.observe(run).status not in {Status.FAILED, Status.INTERRUPTED}

    def _was_stopped(self, run: RunFolder) -> bool:
        """Whether the run was stopped and could be resumed."""
        try:
            status = self._store.observe(run).status
            stopping = status not in ENDED and run.cancel_requested()
            return stopping or status in {Status.CANCELLED, Status.INTERRUPTED}
        except StateError:
            return False

    def _is_reusable(self, run: RunFolder) -> bool:
        """Whether an equal request without a key returns this run."""
        try:
            state = self._store.observe(run)
        except StateError:
            return False
        if state.status in {Status.QUEUED, Status.RUNNING}:
            return not run.cancel_requested()
        if state.status is not Status.COMPLETED or state.ended_at is None or not _still_there(state):
            return False
        return kind_of(state.kind).lasting or is_recent(state.ended_at, EQUAL_WINDOW_S)


def _is_same(run: RunFolder, other: RunFolder | None) -> bool:
    return other is not None and run.run_id == other.run_id


def _still_there(state: RunState) -> bool:
    """Whether the files that a run wrote still exist."""
    return all(Path(path).exists() for path in (state.result.written if state.result else []))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
