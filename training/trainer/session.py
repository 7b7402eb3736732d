"""What the subjects of a `Trainer` share: its settings, its home with the runs, and its last training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..config.settings import Settings
from ..config.specs import MultiRunSpec, TrainSpec
from ..errors import InputError
from ..events import Report, ShouldStop
from ..files.paths import PathPolicy
from ..models.presets import AUTO
from ..runs.cluster_job import cluster_of
from ..runs.folder import RunFolder, RunState
from ..runs.kinds import device_request
from ..runs.store import RunStore
from ..submission.dispatch import Dispatch
from ..worker.in_process import Execute, run_in_process
from ..worker.submit_job import require_cluster
from .ended import MultiRun, TrainingRun
from .on_cluster import run_on_cluster

Rows = str | Path | Sequence[str | Path] | Sequence[Mapping[str, Any]] | Any
"""A dataset: a path, a name, a list of paths, a list of dicts, or a dataset of the library `datasets`."""


class Session:
    """A program's settings and runs.

    Args:
        defaults: the settings of the process.
        arguments: the program's settings by their flat names, and `model`.

    Attributes:
        runs: the trainings of this program, the last one at the end.
    """

    def __init__(self, defaults: Settings, arguments: dict[str, Any], home: Path) -> None:
        self._defaults = defaults
        self._arguments = arguments
        self._store = RunStore(home)
        self._paths = PathPolicy.for_person(defaults.home)
        self.runs: list[TrainingRun | MultiRun] = []
        self._loaded: tuple[Any, Any] | None = None

    def _execute(
        self,
        execute: Execute,
        run: RunFolder,
        listener: Report,
        should_stop: ShouldStop,
    ) -> RunState:
        self._loaded = None  # its memory is needed
        if cluster_of(run.spec()) is not None:
            dispatch = Dispatch(self._store, self._defaults)
            return run_on_cluster(run, self._store, dispatch, listener, should_stop)
        runtime = self._defaults.runtime_dir
        return run_in_process(execute, run, self._store, runtime, listener, should_stop)

    def _require_device(self, spec: TrainSpec | MultiRunSpec) -> None:
        """Raises, before there is a run, if its cluster or the requested GPU is missing."""
        if (cluster := cluster_of(spec)) is not None:
            require_cluster(cluster, self._defaults)
        else:
            device_request(spec)

    def _trained(self, wanted: str) -> TrainingRun | MultiRun:
        """The last training.

        Raises:
            InputError: there is none yet.
        """
        if not self.runs:
            raise InputError(f"There is no {wanted} yet.", hint="Call train() first.")
        return self.runs[-1]

    def _source_to_ask(self) -> str:
        """The last training, or else the trainer's model."""
        last = self.runs[-1].run_id if self.runs else self._arguments["model"]
        if last == AUTO:
            raise InputError("There is no training to ask yet.", hint="Call train() first, or name a model.")
        return last
