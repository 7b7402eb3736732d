"""A run's work in the caller's own process, recorded as a run all the same."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from ..errors import TrainingAbortedError, from_record
from ..hardware.devices import use_device
from ..runs.device_queue import Line, default_runtime_folder
from ..runs.events import Event
from ..runs.folder import RunFolder, RunState
from ..runs.kinds import needs_of
from ..runs.recorder import Journal
from ..runs.store import RunStore
from .context import Work

CarryOut = Callable[[Work, Callable[[], None]], None]


def carry_out_here(
    carry_out: CarryOut,
    run: RunFolder,
    store: RunStore,
    runtime_folder: Path | None,
    listener: Callable[[Event], None],
    should_stop: Callable[[], bool],
) -> RunState:
    """Do a run's work now, and return how it ended.

    Args:
        carry_out: what does the work of this kind of run.
        runtime_folder: where slots lie; None is the user's own.
        listener: called with each event.

    Raises:
        BackpropagateError: it failed; the run holds the reason too.
        TrainingAbortedError: it was stopped before there was anything to keep.
    """
    needs = needs_of(run.spec())
    line = Line(runtime_folder or default_runtime_folder(), needs.lane)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    lock = run.lock()
    lock.try_acquire()
    try:
        journal = Journal(store, run, listener)
        journal.begin(survives_client=False)

        def take_turn() -> None:
            device = line.take_unless_busy(needs.slots)
            if device is None:
                journal.warning("Another run uses the device; this one shares it and will be slower.")
            elif needs.device:
                use_device(device)
            journal.running()

        work = Work(run, journal, lambda: should_stop() or run.cancel_requested(), store.home)
        _journalled(carry_out, work, take_turn)
    finally:
        _restore("CUDA_VISIBLE_DEVICES", visible)
        line.release()
        lock.release()
    state = run.state()
    if state.error:
        raise from_record(state.error)
    return state


def _journalled(carry_out: CarryOut, work: Work, take_turn: Callable[[], None]) -> None:
    try:
        carry_out(work, take_turn)
    except (TrainingAbortedError, KeyboardInterrupt):
        work.journal.cancelled(None)
        raise
    except BaseException as error:
        work.journal.failed(error)
        raise


def _restore(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value
