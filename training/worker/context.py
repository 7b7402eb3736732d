"""What every kind of run is given while it is carried out."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..config.specs import DataSpec, ExportSpec
from ..errors import TrainingAbortedError
from ..events import Event, ShouldStop
from ..files.paths import PathPolicy
from ..hardware.cpu import training_threads
from ..models.resolve import resolve_model
from ..runs.folder import RunFolder
from ..runs.recorder import RunRecorder

WaitForDevice = Callable[[], None]
"""Returns when a device is free and taken. Called after cheap checks, before anything heavy is imported."""


@dataclass(frozen=True)
class RunContext:
    """One run while it is carried out.

    Args:
        recorder: where its events, state and result are recorded.
        should_stop: looked at between rows, steps and questions.
        home: where models and caches lie.
    """

    run: RunFolder
    recorder: RunRecorder
    should_stop: ShouldStop
    home: Path

    def report(self, event: Event) -> None:
        """Record an event of the work."""
        self.recorder.report(event)

    def stop_if_asked(self) -> None:
        """Raises TrainingAbortedError if the user wants the run to stop."""
        if self.should_stop():
            raise TrainingAbortedError("Cancelled before there was anything to keep.")

    def permit(self, path: Path) -> None:
        """Raises PathForbiddenError for a file that this run may not read."""
        PathPolicy.from_record(self.run.spec().roots, self.home).permit(path)

    def model_folder(self, *, weights: bool = True) -> Path:
        """The folder of the run's model, downloaded if need be.

        Args:
            weights: False where the tokenizer is enough.

        Raises:
            ModelLoadError: the model cannot be found or downloaded.
        """
        spec = self.run.spec()
        assert isinstance(spec, DataSpec | ExportSpec)
        model = spec.model
        self.recorder.phase("downloading", f"looking for {model.name}")
        path = resolve_model(
            model.name,
            model.revision,
            self.home / "models",
            self.report,
            self.should_stop,
            weights=weights,
        )
        self.stop_if_asked()
        return path


def use_threads(wanted: int | None) -> int:
    """Set the thread counts that libraries read when they are imported; more than cores would be slower."""
    cores = wanted or training_threads()
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(cores)
    # Threads that spin while they wait for each other cost a factor of ten on a machine that is not idle.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    return cores
