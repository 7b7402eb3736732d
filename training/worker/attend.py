"""Waits for a worker's end, and ends one that does not stop.

The worker's own watcher is a thread. It cannot act while another thread is in a call that keeps the
interpreter, or while the process is stopped. Then the process that started the worker ends it: by its handle,
never by a pid, which may have been given to another process.
"""

from __future__ import annotations

import subprocess
import time

from ..runs.folder import RunFolder
from ..runs.kinds import kind_of
from ..runs.recorder import RunRecorder
from ..runs.store import LEAVING_S, RunStore

LOOK_S = 0.2
GRACE_S = 3.0  # for work that cannot be stopped: imports, downloads, loading, compiling
STEP_GRACE_S = 300.0  # for a step to end and the adapter to be saved
MORE_S = 5.0  # for the worker's watcher, which has the same times


def attend(process: subprocess.Popen[bytes], run: RunFolder, store: RunStore) -> None:
    """Return when a worker has ended; it is killed if its run was asked to stop and does not end in time.

    Raises:
        StateError: the run's folder cannot be read or written.
    """
    asked: float | None = None
    while process.poll() is None:
        time.sleep(LOOK_S)
        asked = (asked or time.monotonic()) if run.cancel_requested() else None
        if asked is not None and time.monotonic() - asked > _grace_s(run):
            process.kill()
            process.wait()
            _record_cancelled(run, store)


def _grace_s(run: RunFolder) -> float:
    return MORE_S + (STEP_GRACE_S if kind_of(run.spec().kind).needs_device else GRACE_S)


def _record_cancelled(run: RunFolder, store: RunStore) -> None:
    lock = run.lock()
    if not lock.try_acquire(LEAVING_S):  # of another worker
        return
    try:
        recorder = RunRecorder(store, run)
        if not recorder.finished:
            run.discard_parts()
            recorder.warn("The worker did not stop by itself and was ended.")
            recorder.cancelled(None)
    finally:
        lock.release()
