"""A network call in a background thread: it cannot be interrupted, but no longer waited for."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, wait
from math import inf
from threading import Thread
from time import monotonic
from typing import TypeVar

from ..errors import TrainingAbortedError
from ..events import ShouldStop

T = TypeVar("T")

POLL_S = 0.2


def background_call(
    work: Callable[[], T],
    should_stop: ShouldStop,
    stopped: str = "Stopped while waiting for the network.",
    *,
    seconds: float = inf,
    while_waiting: Callable[[], None] = lambda: None,
) -> T:
    """The result of `work()`, run in a thread of its own until the user stops or `seconds` have passed.

    Args:
        stopped: the message when the user stops.
        while_waiting: called some times a second.

    Raises:
        TrainingAbortedError: `should_stop` said so; the thread continues in the background.
        TimeoutError: `seconds` have passed.
    """
    outcome: Future[T] = Future()

    def run() -> None:
        try:
            outcome.set_result(work())
        except BaseException as error:
            outcome.set_exception(error)

    Thread(target=run, daemon=True).start()
    deadline = monotonic() + seconds
    while not wait([outcome], timeout=POLL_S).done:
        if should_stop():
            raise TrainingAbortedError(stopped)
        if monotonic() > deadline:
            raise TimeoutError(f"no answer within {seconds:g} s")
        while_waiting()
    return outcome.result()
