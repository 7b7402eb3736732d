"""Pauses a run while one of its GPUs is too hot, and stops it when it is critical.

The guard stands in front of the run's `should_stop`, which every engine asks between its steps: to pause is
to answer later. So all kinds of runs are guarded in the same way, and a run that is paused can be cancelled.
"""

from __future__ import annotations

import threading
import time

from ..config.settings import GpuSettings
from ..errors import GpuMonitoringError, GpuTemperatureCriticalError
from ..events import ShouldStop
from ..hardware.devices import CPU
from ..hardware.neighbours import held_by_others
from ..hardware.temperature import AskedLimits, Heat, Thermometer
from ..next_step import then
from ..runs.recorder import RunRecorder

READ_EVERY_S, READ_PAUSED_S = 5.0, 1.0
LOOK_S = 0.2  # for a request to stop, while paused
LONG_PAUSE_S = 600.0


class TemperatureGuard:
    """The guard of one run. It begins once the recorder says that the run has a GPU.

    Args:
        should_stop: whether the user has requested a stop.
    """

    def __init__(self, recorder: RunRecorder, should_stop: ShouldStop, gpu: GpuSettings) -> None:
        self._recorder, self._asked_to_stop = recorder, should_stop
        self._limits = AskedLimits(**gpu.model_dump())
        self._thermometer: Thermometer | None = None
        self._measured: tuple[str, ...] = ()
        self._failure_said = False
        self._next_reading = 0.0
        self._lock = threading.Lock()  # some data is prepared by several threads

    def should_stop(self) -> bool:
        """Whether the run should stop; answers only when its GPU is not too hot."""
        with self._lock:
            if self._recorder.devices not in ((), (CPU,)) and time.monotonic() >= self._next_reading:
                self._wait_while_hot()
                self._next_reading = time.monotonic() + READ_EVERY_S
        return self._stopped()

    def _stopped(self) -> bool:
        return self._recorder.stop_reason is not None or self._asked_to_stop()

    def _wait_while_hot(self) -> None:
        heat = self._read()
        if heat is None or self._stopped() or not heat.is_hot:
            return
        phase, began = self._recorder.phase_name, time.monotonic()
        said, warned = "", False
        while heat is not None and not heat.has_cooled and not self._stopped():
            message = f"paused: GPU {heat.gpu} at {heat.celsius} °C; goes on at {heat.limits.resume_c} °C"
            if message != said:
                said = message
                self._recorder.phase(phase, message)
            if not warned and time.monotonic() - began >= LONG_PAUSE_S:
                warned = True
                self._warn_of_long_pause(heat)
            self._wait()
            heat = self._read()
        paused = time.monotonic() - began
        self._recorder.paused_s += paused
        if not self._stopped():
            at = f"GPU {heat.gpu} at {heat.celsius} °C, " if heat else ""
            self._recorder.phase(phase, f"going on: {at}paused for {paused:.0f} s")

    def _wait(self) -> None:
        end = time.monotonic() + READ_PAUSED_S
        while time.monotonic() < end and not self._stopped():
            time.sleep(LOOK_S)

    def _read(self) -> Heat | None:
        """The GPU that is nearest to its limits; a critical one stops the run. None if there is no answer."""
        try:
            if self._thermometer is None or self._measured != self._recorder.devices:
                self._thermometer = Thermometer(self._recorder.devices, self._limits)
                self._measured = self._recorder.devices
            readings = self._thermometer.read()
        except GpuMonitoringError as error:
            self._say_once(error)
            return None
        critical = next((heat for heat in readings if heat.is_critical), None)
        if critical and self._recorder.stop_reason is None:
            self._recorder.stop_reason = _too_hot(critical, self._recorder.run.run_id)
            message = f"stopping: GPU {critical.gpu} at {critical.celsius} °C is critical"
            self._recorder.phase(self._recorder.phase_name, message)
        return readings[-1] if readings else None

    def _say_once(self, error: GpuMonitoringError) -> None:
        if not self._failure_said:
            self._failure_said = True
            self._recorder.warn(f"{error.message} The run is not paused if the GPU becomes too hot.")

    def _warn_of_long_pause(self, heat: Heat) -> None:
        others = held_by_others()
        self._recorder.warn(
            f"The run has been paused for {LONG_PAUSE_S / 60:.0f} minutes, and GPU {heat.gpu} is still at "
            f"{heat.celsius} °C. Check its fans and its room, and whether another process uses it"
            f"{f': {others}' if others else ''}."
        )


def _too_hot(heat: Heat, run_id: str) -> GpuTemperatureCriticalError:
    return GpuTemperatureCriticalError(
        f"GPU {heat.gpu} is at {heat.celsius} °C, and {heat.limits.critical_c} °C is critical: the run was "
        "stopped, and what it has done is saved.",
        hint="Let the card cool, and check its fans and its room.",
        next=then("resume", run_id=run_id),
    )
