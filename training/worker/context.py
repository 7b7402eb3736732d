"""The context that every kind of run gets while it is executed."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from ..config.specs import DataSpec, ModelGroup, ModelSpec
from ..errors import TrainingAbortedError
from ..events import Event, ShouldStop
from ..files.paths import PathPolicy
from ..files.permitted_folders import PermittedFolders
from ..hardware.cpu import training_threads
from ..models.model_folder import require_small_files
from ..models.presets import classify_model
from ..models.resolve import resolve_model
from ..runs.folder import RunFolder
from ..runs.recorder import RunRecorder
from ..untrusted import shown_path

if TYPE_CHECKING:
    from .given_hosts import GivenHosts

WaitForDevice = Callable[[], None]
"""Returns when the run has its device. Called after cheap checks, before heavy imports."""


@dataclass(frozen=True)
class RunContext:
    """One run while it is executed.

    Args:
        recorder: records its events, state and result.
        should_stop: called between rows, steps and questions.
        home: the home folder with models and caches.
        own_process: whether this process ends with the run, and may be ended for it.
        give_back: lets other runs have its devices but the first.
        hosts: those that share the run without a scheduler; None: it has this machine, or is a job.
    """

    run: RunFolder
    recorder: RunRecorder
    should_stop: ShouldStop
    home: Path
    own_process: bool = False
    give_back: Callable[[], None] = lambda: None
    hosts: GivenHosts | None = None

    @cached_property
    def _policy(self) -> PathPolicy:
        return PathPolicy.from_record(self.run.spec().roots, self.home)

    @cached_property
    def _folders(self) -> PermittedFolders:
        return PermittedFolders(self._policy)

    def report(self, event: Event) -> None:
        """Record an event."""
        self.recorder.report(event)

    def keep_first_device(self) -> None:
        """What is left to do needs one device: other runs can have the rest."""
        self.recorder.devices = self.recorder.devices[:1]
        self.give_back()

    def stop_if_asked(self) -> None:
        """Raises TrainingAbortedError if the user has cancelled the run."""
        if self.should_stop():
            raise TrainingAbortedError("Cancelled before there was a result to save.")

    def permit(self, path: Path) -> None:
        """Raises PathForbiddenError for a file that this run may not read."""
        self._policy.permit(path)

    def permit_output(self, target: Path) -> None:
        """Raises PathForbiddenError if the user's output may not be written.

        Asked again after each wait: a folder of its path may have become a link.
        """
        self._policy.resolve(str(target.absolute()), "output", write=True)

    def model_folder(
        self, model: ModelGroup | None = None, *, weights: bool = True, revision: str | None = None
    ) -> Path:
        """The folder of a model, downloaded if necessary.

        Args:
            model: None: that of the spec.
            weights: False if only the tokenizer is needed.
            revision: of a Hub model, where it is known more exactly than the spec says it.

        Raises:
            ModelLoadError: the model cannot be found or downloaded.
        """
        model = model or self._model()
        self.recorder.phase("downloading", f"looking for {shown_path(model.name)}")
        path = resolve_model(
            model.name,
            revision or model.revision,
            self.home / "models",
            self.report,
            self.should_stop,
            weights=weights,
        )
        self.stop_if_asked()
        if classify_model(model.name, weights=weights).kind == "folder":
            self.permit_links(path, "model")
            if model.revision is not None:
                self.recorder.warn("revision is not used: the model is a folder.")
        require_small_files(path)
        return path

    def _model(self) -> ModelGroup:
        spec = self.run.spec()
        assert isinstance(spec, DataSpec | ModelSpec)
        return spec.model

    def permit_links(self, folder: Path, argument: str) -> None:
        """Permit the folder of a model or an adapter before it is read.

        Raises:
            PathForbiddenError: it has a link to a file that may not be read.
        """
        self._folders.permit(folder, argument)

    def require_permitted(self) -> None:
        """To be called after reading such folders; see `PermittedFolders.require_unchanged`.

        Raises:
            InputError: a file of one was exchanged while it was read.
        """
        self._folders.require_unchanged()


def use_threads(wanted: int | None) -> int:
    """Set the thread counts that libraries read at import; more threads than cores are slower."""
    cores = wanted or training_threads()
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(cores)
    # Threads that busy-wait make training ten times slower on a machine with other load.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    return cores
