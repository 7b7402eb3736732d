"""Ends the worker of a cancelled run from outside, if nothing in that process stops it.

The worker's own watcher is a thread. It cannot act while another thread is in a call that keeps the
interpreter, or while the process is stopped.
"""

from __future__ import annotations

import time
from contextlib import suppress

import psutil

from ..runs.folder import ENDED, RunFolder
from ..runs.kinds import device_request
from ..runs.locks import is_free
from ..runs.recorder import RunRecorder
from ..runs.store import LEAVING_S, RunStore

LOOK_S = 0.2
GRACE_S = 3.0  # for work that cannot be stopped: imports, downloads, loading, compiling
STEP_GRACE_S = 300.0  # for a step to end and the adapter to be saved
MORE_S = 5.0  # for the worker's watcher, which has the same times


def end_if_frozen(run: RunFolder, store: RunStore) -> None:
    """Wait for the end of a run that was asked to stop; kill its worker if it does not end in time.

    A run in the process of a program is left to that program.
    """
    grace = STEP_GRACE_S if device_request(run.spec()).needs_device else GRACE_S
    until = time.monotonic() + grace + MORE_S
    while time.monotonic() < until:
        if not run.cancel_requested() or store.observe(run).status in ENDED:
            return
        time.sleep(LOOK_S)
    if _kill_worker(run):
        _record_cancelled(run, store)


def _kill_worker(run: RunFolder) -> bool:
    pid = run.state().pid
    if pid is None or is_free(run.lock_path):
        return False
    with suppress(psutil.Error):
        process = psutil.Process(pid)
        if str(run.path) in process.cmdline():  # a pid may have been given to another process
            process.kill()
            process.wait(LEAVING_S)
            return True
    return False


def _record_cancelled(run: RunFolder, store: RunStore) -> None:
    lock = run.lock()
    if not lock.try_acquire(LEAVING_S):
        return
    try:
        recorder = RunRecorder(store, run)
        if not recorder.finished:
            run.discard_parts()
            recorder.warn("The worker did not stop by itself and was ended.")
            recorder.cancelled(None)
    finally:
        lock.release()
