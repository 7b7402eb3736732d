"""The callbacks of earlier versions, with the arguments that these gave them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..events import AdapterSaved, Epoch, Event, Step
from .callbacks import Callbacks
from .ended import MultiRun, TrainingRun


@dataclass(frozen=True)
class TrainingCallback:
    """Functions that are called during training, as programs of version 1 have them.

    Args:
        on_step: gets the step's number and its loss.
        on_epoch: gets the number of the pass that has ended.
        on_save: gets the folder of the adapter.
        on_complete: gets what `train` or `multi_run` returns.
        on_error: gets the exception with which the run fails.
    """

    on_step: Callable[[int, float], object] | None = None
    on_epoch: Callable[[int], object] | None = None
    on_save: Callable[[str], object] | None = None
    on_complete: Callable[[TrainingRun | MultiRun], object] | None = None
    on_error: Callable[[Exception], object] | None = None

    def of_events(self) -> Callbacks:
        """Those that are called while the run goes on."""
        return Callbacks(on_step=self._step, on_epoch=self._epoch, on_save=self._saved)

    def _step(self, event: Event) -> None:
        if self.on_step and isinstance(event, Step):
            self.on_step(event.step, event.loss)

    def _epoch(self, event: Event) -> None:
        if self.on_epoch and isinstance(event, Epoch):
            self.on_epoch(event.epoch)

    def _saved(self, event: Event) -> None:
        if self.on_save and isinstance(event, AdapterSaved):
            self.on_save(event.path)

    def completed(self, run: TrainingRun | MultiRun) -> None:
        if self.on_complete:
            self.on_complete(run)

    def failed(self, error: Exception) -> None:
        if self.on_error:
            self.on_error(error)
