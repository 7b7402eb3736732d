"""Executes a run in the caller's process, with the same record as in a worker."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

from ..config.settings import load_settings
from ..errors import InputError, TrainingAbortedError, from_record
from ..events import Report, ShouldStop, never_stop, no_report
from ..hardware.devices import use_device
from ..next_step import then
from ..runs.device_queue import DeviceQueue, default_runtime_folder
from ..runs.folder import RunFolder, RunState
from ..runs.kinds import device_request
from ..runs.recorder import RunRecorder
from ..runs.store import LEAVING_S, RunStore
from .context import RunContext, WaitForDevice
from .interfaces import INTERFACES
from .temperature_guard import TemperatureGuard
from .torch_allocator import ALLOCATOR, allocator_environment

CHANGED = ("CUDA_VISIBLE_DEVICES", *ALLOCATOR, *INTERFACES)
"""Environment variables of the caller's process that a run sets."""
Execute = Callable[[RunContext, WaitForDevice], object]
"""The `run` of a kind's module."""


def run_in_process(
    execute: Execute,
    run: RunFolder,
    store: RunStore,
    runtime_folder: Path | None,
    listener: Report = no_report,
    should_stop: ShouldStop = never_stop,
) -> RunState:
    """Execute a run now, and return its final state.

    Args:
        execute: the `run` of its kind's module.
        runtime_folder: folder of the device queue; None: the user's default.
        listener: called with each event.

    Raises:
        BackpropagateError: it failed; the run records the error too.
        TrainingAbortedError: it was stopped before there was a result to save.
        InputError: another process executes it.
    """
    request = device_request(run.request_now())
    queue = DeviceQueue(runtime_folder or default_runtime_folder(), request.queue)
    with _locked(run), _environment_kept(*CHANGED):
        os.environ.update(allocator_environment())
        recorder = RunRecorder(store, run, listener)
        recorder.begin(survives_client=False)

        def wait_for_device() -> None:
            slots, count = request.slots, request.at_once
            devices = queue.take_several_unless_busy(slots, count)
            if not devices:
                devices = queue.take_from_keeper(run.run_id, slots, count)
            if not devices:
                recorder.warn("Another run uses the device; both share it and will be slower.")
            elif request.needs_device:
                use_device(devices[0])
            recorder.running(*((devices or slots[:count]) if request.needs_device else ()))

        guard = TemperatureGuard(
            recorder, lambda: should_stop() or run.cancel_requested(), load_settings().gpu
        )
        context = RunContext(run, recorder, guard.should_stop, store.home, give_back=queue.keep_first)
        try:
            _recorded(execute, context, wait_for_device)
        finally:
            queue.release()
    state = run.state()
    if state.error:
        raise from_record(state.error)
    return state


def _recorded(execute: Execute, context: RunContext, wait_for_device: WaitForDevice) -> None:
    """Execute the run, and record a failure or a cancellation."""
    try:
        execute(context, wait_for_device)
        context.recorder.require_end()
    except (TrainingAbortedError, KeyboardInterrupt):
        context.recorder.cancelled(None)
        if context.recorder.stop_reason:
            raise context.recorder.stop_reason from None
        raise
    except BaseException as error:
        context.recorder.failed(error)
        raise


@contextmanager
def _locked(run: RunFolder) -> Generator[None]:
    """Hold the run's lock, whose holder is the only writer of the run."""
    lock = run.lock()
    if not lock.try_acquire(LEAVING_S):  # the process of an earlier attempt may still be exiting
        raise InputError(
            f"Run {run.run_id} is running in another process.", next=then("get_run", run_id=run.run_id)
        )
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _environment_kept(*names: str) -> Generator[None]:
    values = {name: os.environ.get(name) for name in names}
    try:
        yield
    finally:
        for name, value in values.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
