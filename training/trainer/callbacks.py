"""What a program hears of a training while it runs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.util import find_spec
from inspect import Parameter, signature
from typing import Any, cast

from ..errors import InputError
from ..events import Event, Step


@dataclass(frozen=True)
class Callbacks:
    """Functions that are called during training; each gets one event.

    A function of two arguments for `on_step` gets the step's number and its loss instead. An exception in a
    callback fails the training: a callback is part of the caller's program.
    """

    on_step: Callable[[Event], object] | Callable[[int, float], object] | None = None
    on_epoch: Callable[[Event], object] | None = None
    on_save: Callable[[Event], object] | None = None
    on_complete: Callable[[Event], object] | None = None
    on_error: Callable[[Event], object] | None = None

    def __call__(self, event: Event) -> None:
        callback = {
            "step": self.on_step,
            "epoch": self.on_epoch,
            "saved": self.on_save,
            "done": self.on_complete,
            "error": self.on_error,
        }.get(event.kind)
        if callback:
            cast("Callable[[Event], object]", callback)(event)


def callbacks_of(given: Callbacks | Callable[..., object] | None) -> Callbacks:
    """The callbacks that a program gave; a plain function is called with each step.

    Raises:
        InputError: it is neither.
    """
    found = given if isinstance(given, Callbacks) else Callbacks(on_step=given)
    if found.on_step is None:
        return found
    if not callable(found.on_step):
        raise InputError(
            f"callback is a {type(given).__name__}.", hint="Give Callbacks(on_step=…), or a function."
        )
    return replace(found, on_step=_of_one_event(found.on_step))


def _of_one_event(on_step: Callable[..., object]) -> Callable[[Event], object]:
    """A function of (step, loss) as one of an event."""
    if not _takes_two(on_step):
        return on_step

    def told(event: Event) -> object:
        assert isinstance(event, Step)
        return on_step(event.step, event.loss)

    return told


def _takes_two(function: Callable[..., object]) -> bool:
    """Whether it needs two arguments; of a function of C, such as `print`, that is often not known."""
    try:
        parameters = signature(function).parameters.values()
    except (TypeError, ValueError):
        return False
    positional = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
    return sum(each.kind in positional and each.default is Parameter.empty for each in parameters) == 2


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    shell: Any = sys.modules.get("ipykernel.zmqshell")
    ipython: Any = sys.modules.get("IPython")
    return shell is not None and isinstance(ipython and ipython.get_ipython(), shell.ZMQInteractiveShell)


class Bar:
    """A progress bar of a training's steps; closes itself with the training."""

    def __init__(self) -> None:
        self._bar: Any = None

    def __call__(self, event: Event) -> None:
        if isinstance(event, Step):
            self._show(event)
        elif event.kind in ("done", "error") and self._bar is not None:
            self._bar.close()

    def _show(self, step: Step) -> None:
        done, total = step.overall
        if self._bar is None:
            self._bar = import_module("tqdm.auto").tqdm(total=round(total), desc="training")
        self._bar.set_postfix(loss=f"{step.loss:.4f}", refresh=False)
        self._bar.update(round(done) - self._bar.n)


def bar_of(progress: bool | None) -> Callable[[Event], None] | None:
    """The progress bar that is wanted; None if none is.

    Args:
        progress: None shows one in a notebook.
    """
    wanted = in_notebook() if progress is None else progress
    return Bar() if wanted and find_spec("tqdm") is not None else None
