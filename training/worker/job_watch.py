"""What a worker on a cluster, whose run is not its machine's, looks for on a network file system."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from types import FrameType

from ..errors import RunInterruptedError, StateError
from ..next_step import then
from ..runs.folder import Status
from ..runs.recorder import RunRecorder

LOOK_S = 2.0  # each look asks the file server
TIME_IS_NEAR = getattr(signal, "SIGUSR1", signal.SIGTERM)  # Windows has none, and no jobs


def save_before_the_end(recorder: RunRecorder) -> None:
    """Stop the run with a checkpoint when Slurm announces the end of its job; called by the main thread.

    Slurm is asked to announce the time limit (`--signal` in submit_job.py). For other ends it sends SIGTERM,
    and kills what is left some seconds later.
    """

    def stop(number: int, _frame: FrameType | None) -> None:
        why = "its time limit is near" if number == TIME_IS_NEAR else "Slurm ends it"
        recorder.stop_reason = RunInterruptedError(
            f"The run's job was stopped: {why}. What it had done is saved.",
            hint="Resuming submits it again; it continues from there.",
            next=then("resume", run_id=recorder.run.run_id),
        )

    for number in {TIME_IS_NEAR, signal.SIGTERM}:
        signal.signal(number, stop)


def asked_in_job(recorder: RunRecorder) -> bool:
    """Whether the run was asked to stop, by its user or by Slurm.

    Exits the process if somebody has recorded that this attempt is over: its host was lost and lives, and the
    run may have gone on elsewhere. Two workers must not write to one folder.
    """
    if recorder.stop_reason is not None:
        return True
    run = recorder.run
    with suppress(StateError):
        state = run.state()
        is_over = state.attempt != recorder.attempt or state.status is Status.INTERRUPTED
        if is_over and not recorder.finished:
            os._exit(1)
    # The client of a network file system remembers for a minute that a file is not there; not so of a list.
    with suppress(OSError):
        return run.control_path.name in os.listdir(run.path)
    return False
