"""Carries a run of a program out on a cluster: puts it on its way, and follows it to its end."""

from __future__ import annotations

import time

from ..errors import BackpropagateError, TrainingAbortedError, from_record
from ..events import Report, ShouldStop
from ..runs.folder import ENDED, RunFolder, RunState, Status
from ..runs.store import RunStore
from ..submission.dispatch import Dispatch

LOOK_S = 0.5
STOPPED = "stopped by the program"


def run_on_cluster(
    run: RunFolder, store: RunStore, dispatch: Dispatch, listener: Report, should_stop: ShouldStop
) -> RunState:
    """Start a queued run, and return its final state; arguments and errors as of `run_in_process`.

    Raises:
        ClusterError: the cluster refuses it; nothing of a new run is kept.
    """
    end = run.events(0)[1]
    _start(run, store, dispatch)
    try:
        state = _follow(run, store, listener, should_stop, end)
    except KeyboardInterrupt:
        _stop(run, store)
        raise
    if state.error:
        raise from_record(state.error)
    if state.status is Status.CANCELLED and state.result is None:
        raise TrainingAbortedError("Cancelled before there was a result to save.")
    return state


def _start(run: RunFolder, store: RunStore, dispatch: Dispatch) -> None:
    attempt = run.state().attempt
    try:
        dispatch.queue(run, run.request_now())
    except BackpropagateError as error:
        if attempt == 1:
            store.delete_unstarted(run)
        else:
            store.fail_unstarted(run, attempt, error.record())
        raise
    dispatch.start(run)


def _follow(run: RunFolder, store: RunStore, listener: Report, should_stop: ShouldStop, end: int) -> RunState:
    while True:
        state = store.observe(run)  # before the events: the last one is written before the last state
        events, end = run.events(end)
        for event in events:
            listener(event)
        if state.status in ENDED:
            return state
        if should_stop() and not run.cancel_requested():
            _stop(run, store)
        time.sleep(LOOK_S)


def _stop(run: RunFolder, store: RunStore) -> None:
    run.request_cancel(STOPPED)
    store.cancel_waiting(run, store.observe(run))
