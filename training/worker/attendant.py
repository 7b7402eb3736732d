"""The process of a run whose first host is another one: it starts the worker there, and stays with it.

It holds the run's lock, so that the run lives exactly as long as it does, and writes only before the worker
begins and after it has ended. The worker ends with its connection (`over_ssh.py`).
"""

from __future__ import annotations

import sys
import time

from ..clusters.hosts import Hosts
from ..clusters.job_script import inherited
from ..clusters.ssh import NOT_CONNECTED
from ..config.settings import Settings
from ..errors import RunInterruptedError
from ..next_step import then
from ..runs.folder import ENDED, RunFolder, RunState
from ..runs.recorder import RunRecorder
from ..runs.saved_result import ended_with_result
from ..runs.store import RunStore
from ..untrusted import quoted
from .given_hosts import ended_there
from .leased import LOOK_S, LOOKS
from .notice import notify
from .over_ssh import start_on
from .spawn import worker_environment
from .with_parent import WITH_PARENT

LATE_LOOKS = 60


def attend_on_first(run: RunFolder, hosts: Hosts, settings: Settings) -> None:
    """Let the first host carry a run out; called by the holder of its lock."""
    store, first = RunStore(settings.home), hosts.first
    recorder = RunRecorder(store, run)
    recorder.begin()
    recorder.phase("starting", f"starting the worker on {quoted(first.name)}")
    environment = worker_environment(settings)
    process = start_on(
        first,
        settings.python or sys.executable,
        "main",
        run,
        WITH_PARENT,
        environment={name: environment[name] for name in inherited(environment, hosts)},
    )
    code = process.wait()
    if code == NOT_CONNECTED:
        time.sleep((LOOKS + 3) * LOOK_S)  # what is there misses this connection too, and has ended then
    state = _state_after(run, code)
    if state.status not in ENDED:
        _record_the_end(store, run, state, f"Host {quoted(first.name)} {ended_there(code)}")
    notify(run, settings.notify)


def _state_after(run: RunFolder, code: int) -> RunState:
    """The last record of a worker that ended well may come later than its end, by a network file system."""
    looks = LATE_LOOKS if code == 0 else 0
    while (state := run.state()).status not in ENDED and looks:
        looks -= 1
        time.sleep(LOOK_S)
    return state


def _record_the_end(store: RunStore, run: RunFolder, state: RunState, why: str) -> None:
    """For the worker, which could not."""
    run.discard_parts()
    if state.result is not None:
        missing = f"{why}. The adapter was saved before; a copy or answers may be missing."
        store.finish(run, ended_with_result(state, missing))
    elif run.cancel_requested():
        RunRecorder(store, run).cancelled(None)
    else:
        RunRecorder(store, run).failed(
            RunInterruptedError(
                f"{why}, so the run was ended.",
                hint="worker.log in the run folder may say more. "
                "Resuming continues from the last checkpoint, if there is one.",
                next=then("resume", run_id=run.run_id),
            )
        )
