"""One run at work: where it is written down, what it may read, and how it sees that it should stop."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..config.specs import DataSpec, ExportSpec
from ..errors import TrainingAbortedError
from ..events import Event
from ..files.paths import PathPolicy
from ..hardware.cpu import training_threads
from ..models.resolve import resolve_model
from ..runs.folder import RunFolder
from ..runs.recorder import Journal


@dataclass(frozen=True)
class Work:
    """What every kind of run is given.

    Args:
        should_stop: looked at between rows, steps and questions.
        home: where models and caches lie.
    """

    run: RunFolder
    journal: Journal
    should_stop: Callable[[], bool]
    home: Path

    def stop_here_if_asked(self) -> None:
        if self.should_stop():
            raise TrainingAbortedError("Cancelled before there was anything to keep.")

    def permit(self, path: Path) -> None:
        """Raises PathForbiddenError for a file that this run may not read."""
        PathPolicy.from_record(self.run.spec().roots, self.home).permit(path)

    def phase(self, name: str) -> Callable[[str, float | None], None]:
        """A report that writes its messages as this phase of the run."""
        return lambda message, fraction: self.journal.phase(name, message, fraction=fraction)

    def report(self, event: Event) -> None:
        self.journal.event(event.kind, **event.model_dump(exclude={"seq", "t", "kind"}, exclude_none=True))

    def model_folder(self, *, weights: bool = True) -> Path:
        """The folder of the run's model, downloaded if need be.

        Args:
            weights: False where the tokenizer is enough.

        Raises:
            ModelLoadError: the model cannot be had.
        """
        spec = self.run.spec()
        assert isinstance(spec, DataSpec | ExportSpec)
        model = spec.model
        self.journal.phase("downloading", f"looking for {model.name}")
        path = resolve_model(
            model.name,
            model.revision,
            self.home / "models",
            self.report,
            self.should_stop,
            weights=weights,
        )
        self.stop_here_if_asked()
        return path


def use_threads(wanted: int | None) -> int:
    """Set the thread counts that libraries read when they are imported; more than cores would cost."""
    cores = wanted or training_threads()
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(cores)
    # Threads that spin while they wait for each other cost a factor of ten on a machine that is not idle.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    return cores
