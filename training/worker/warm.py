"""Keeps the model of a request for answers for a while, for the next requests of the same model.

The worker that keeps it still holds its device, and a lock that is named after the model. The worker of a new
run sees that lock, and leaves its run to it; when the lock is gone, the new worker carries the run out
itself. The keeper looks at the queue of its device, takes the runs that ask its model, and leaves as soon as
another run is ready. Locks end with their process, so that a keeper that is killed strands no run.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..config.settings import Settings
from ..config.specs import GenerateSpec
from ..errors import BackpropagateError
from ..runs.device_queue import DeviceQueue, default_runtime_folder
from ..runs.folder import ENDED, RunFolder
from ..runs.kinds import device_request
from ..runs.locks import FOREVER, Lock
from ..runs.model_stamp import model_key
from .context import RunContext
from .generate import answer, permit_again
from .output_file import write_output_to

if TYPE_CHECKING:
    from ..engine.tuned_model import TunedModel

LOOK_S = 0.05
HANDOVER_S = 10.0  # a run is left to a keeper for this long; its place in the queue is kept for twice as long

CarryOut = Callable[[RunFolder, Lock, Callable[[RunContext], object]], None]
"""Carries out work for a run, records how it ended, and releases its lock."""


def left_to_keeper(run: RunFolder, settings: Settings) -> bool:
    """Whether the worker that keeps the run's model has taken the run; waits until it has, or is gone."""
    with suppress(BackpropagateError):  # told when the run is carried out
        return _left_to_keeper(run, settings)
    return False


def _left_to_keeper(run: RunFolder, settings: Settings) -> bool:
    spec = run.spec()
    if not isinstance(spec, GenerateSpec):
        return False
    runtime = settings.runtime_dir or default_runtime_folder()
    queue = DeviceQueue(runtime, device_request(spec).queue, FOREVER)
    key, end = model_key(spec), time.monotonic() + HANDOVER_S
    while queue.is_kept(key) and time.monotonic() < end and not run.cancel_requested():
        state = run.state()
        if state.pid is not None or state.status in ENDED:
            return True
        time.sleep(LOOK_S)
    return False


@dataclass(frozen=True)
class Keeper:
    """The worker that keeps a model.

    Args:
        key: see `model_key`.
        queue: holds the device.
        device: a GPU's UUID, or `cpu`.
        runs: the folder of runs.
        idle_s: how long it waits for the next run.
    """

    model: TunedModel
    key: str
    queue: DeviceQueue
    device: str
    runs: Path
    idle_s: float

    def serve(self, carry_out: CarryOut) -> None:
        """Answer the runs that ask this model, until another run is ready or none has come for `idle_s`."""
        kept = self.queue.keep(self.key)
        if kept is None:  # another worker keeps the same model
            return
        try:
            write_output_to(Path(os.devnull))
            os.chdir(self.runs)  # the folder of the first run can be removed
            while (lock := self._next()) is not None:
                run = RunFolder(lock.path.parent)
                write_output_to(run.log_path)
                carry_out(run, lock, self._answer)
                write_output_to(Path(os.devnull))
        finally:
            self.queue.end_keeping(kept)

    def _answer(self, context: RunContext) -> None:
        spec = context.run.spec()
        assert isinstance(spec, GenerateSpec)
        permit_again(context, spec)
        context.recorder.running(self.device)
        answer(context, self.model, warm=True)

    def _next(self) -> Lock | None:
        """The lock of the next run that asks this model; None to leave."""
        end = time.monotonic() + self.idle_s
        while time.monotonic() < end:
            for run_id, ready in self.queue.waiting():
                lock = self._taken(RunFolder(self.runs / run_id))
                if lock is not None:
                    self.queue.leave(run_id)
                    return lock
                if ready:
                    return None
            time.sleep(LOOK_S)
        return None

    def _taken(self, run: RunFolder) -> Lock | None:
        """The lock of a queued run that asks this model and that no other process has."""
        with suppress(BackpropagateError, OSError):  # of another home, or removed
            spec = run.spec()
            if not isinstance(spec, GenerateSpec) or model_key(spec) != self.key:
                return None
            lock = run.lock()
            if lock.try_acquire():
                if run.state().status not in ENDED:
                    return lock
                lock.release()
        return None
