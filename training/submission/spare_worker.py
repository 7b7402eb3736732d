"""A worker that imports libraries before there is a run for it: the half of it in the service.

Importing torch and transformers takes longer than all else before the first step of a small model. Nothing of
a run is known then, so a spare is started as any worker would be, and is used only while a worker would
still be started in the same way. The other half is `worker/spare.py`.
"""

from __future__ import annotations

import json
import subprocess
import sysconfig
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ..config.settings import Settings
from ..config.specs import TRAININGS, AnySpec
from ..errors import GpuNotAvailableError
from ..hardware.cpu import read_cpu
from ..hardware.devices import CPU, ON_CPU, training_devices
from ..logs import logger
from ..runs.cluster_job import cluster_of
from ..runs.folder import RunFolder
from ..runs.kinds import device_request
from ..telemetry import trace_environment
from ..worker.spawn import local_environment, spawn_spare

ANNOUNCING = frozenset({"inspect", "probe", *TRAININGS})
"""Kinds of run that a training often follows."""
LEAST_MIB = 8 * 1024
"""Of available memory: a spare takes about 0.4 GiB."""


@dataclass(frozen=True)
class _Spare:
    """One that was started, and what it was started with.

    Args:
        libraries: when something was last installed, by folder.
    """

    process: subprocess.Popen[bytes]
    environment: dict[str, str]
    libraries: dict[str, int]

    def is_as(self, environment: dict[str, str]) -> bool:
        return self.environment == environment and self.libraries == _libraries()


class SpareWorker:
    """At most one spare of a service. Thread-safe.

    Args:
        settings: those of the service; `spare_worker_s` is how long a spare waits.
        runtime_folder: of the device queue.
    """

    def __init__(self, settings: Settings, runtime_folder: Path) -> None:
        self._settings, self._runtime_folder = settings, runtime_folder
        self._lock = threading.Lock()
        self._spare: _Spare | None = None
        self._wanted = False

    @contextmanager
    def kept(self) -> Generator[None]:
        """Have a spare in here, once `prepare` is called; then it ends."""
        self._wanted = self._settings.spare_worker_s > 0
        try:
            yield
        finally:
            with self._lock:
                self._wanted = False
                self._end()

    def prepare(self) -> None:
        """A training may come soon: start a spare if one is wanted, there is none, and memory suffices."""
        with self._lock, suppress(OSError):  # runs start without a spare too
            spare = self._living()
            if not self._wanted:
                return
            environment = self._environment(training_devices("auto"))
            if spare is not None and spare.is_as(environment):
                return
            self._end()
            if read_cpu().memory_available_mib >= LEAST_MIB:
                self._spare = self._started(environment)

    def take(self, run: RunFolder, spec: AnySpec) -> subprocess.Popen[bytes] | None:
        """The spare as the worker of this run; None if there is none that is as its worker would be."""
        if spec.kind not in TRAININGS or cluster_of(spec) is not None or run.cancel_requested():
            return None
        with self._lock, suppress(GpuNotAvailableError):  # the worker says it
            spare = self._living()
            if spare is None or not spare.is_as(self._environment(device_request(spec).slots)):
                return None
            self._spare = None
            return _handed_to(spare.process, run)
        return None

    def _living(self) -> _Spare | None:
        """The spare, if it has not ended; there is no other after one that failed."""
        if self._spare is not None and (code := self._spare.process.poll()) is not None:
            if code:
                logger().warning("spare_worker_failed", exit_code=code)
                self._wanted = False
            self._end()
        return self._spare

    def _started(self, environment: dict[str, str]) -> _Spare:
        process = spawn_spare(self._settings, environment)
        # Without a wait for its exit status the child would remain as a zombie.
        threading.Thread(target=process.wait, daemon=True, name="spare-worker").start()
        return _Spare(process, environment, _libraries())

    def _environment(self, devices: list[str]) -> dict[str, str]:
        """Of a worker with these devices when it imports libraries, whatever call it is started by."""
        environment = ON_CPU if devices == [CPU] else {}
        environment = environment | local_environment(self._settings, self._runtime_folder)
        return {name: value for name, value in environment.items() if name not in trace_environment()}

    def _end(self) -> None:
        if self._spare is not None:
            _pipe_of(self._spare.process).close()
        self._spare = None


def _handed_to(process: subprocess.Popen[bytes], run: RunFolder) -> subprocess.Popen[bytes] | None:
    """The process, if it still takes a run."""
    run.log_path.touch()
    line = json.dumps({"run": str(run.path), "environment": trace_environment()})
    try:
        with _pipe_of(process) as pipe:
            pipe.write(f"{line}\n".encode())
    except OSError as error:
        logger().info("spare_worker_is_gone", run_id=run.run_id, error=type(error).__name__)
        return None
    return process


def _pipe_of(process: subprocess.Popen[bytes]) -> IO[bytes]:
    assert process.stdin is not None
    return process.stdin


def _libraries() -> dict[str, int]:
    folders = {sysconfig.get_path(name) for name in ("purelib", "platlib")}
    return {folder: Path(folder).stat().st_mtime_ns for folder in folders}
