"""Passes through the layers that all ranks make together, since each has a shard of the weights only.

What is gathered when is a matter of the passes alone, and not of what a rank computes in them: so no rank
ever waits for another one that has fewer micro-batches, or has run out of memory in the middle of one.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager

from ..out_of_memory import ran_out_of_memory
from ..parallel.orders import Order
from ..parallel.ranks import Ranks


class Passes:
    """The passes of one rank.

    Args:
        bring: gathers a layer's weights, with the other ranks.
    """

    def __init__(self, layers: int, ranks: Ranks, bring: Callable[[int], object]) -> None:
        self._layers, self._ranks, self._bring = layers, ranks, bring
        self._agreed = 0
        self._ahead: list[int] = []
        """What is left of this pass, backwards, the layer in use included."""

    @contextmanager
    def agreed(self, count: int, *, backward: bool) -> Generator[None]:
        """All ranks make so many passes in the block; those that this one does not compute follow it."""

        def rest() -> None:
            while self._agreed:
                with self.one(backward=backward):
                    pass

        self._agreed = count
        with _also_out_of_memory(rest):
            yield

    @contextmanager
    def one(self, *, backward: bool) -> Generator[None]:
        """One of the passes that were agreed on, or one of rank 0 alone, which tells the others."""
        if self._agreed:
            self._agreed -= 1
        elif self._ranks.rank == 0:
            self._ranks.say(Order.PASS)
        else:
            raise AssertionError("more passes than were agreed on")
        up = range(self._layers)
        self._ahead = [*up, *reversed(up[:-1])][::-1] if backward else [*reversed(up)]
        self._bring(0)
        with _also_out_of_memory(self._finish):
            yield

    def reach(self, layer: int) -> None:
        """Bring the layers of this pass up to one of them, which may be in use already."""
        while self._ahead and self._ahead[-1] != layer:
            self._advance()
        if not self._ahead:
            raise AssertionError(f"layer {layer} outside of a pass")

    def _finish(self) -> None:
        while self._ahead:
            self._advance()

    def _advance(self) -> None:
        self._ahead.pop()
        if self._ahead:
            self._bring(self._ahead[-1])


@contextmanager
def _also_out_of_memory(rest: Callable[[], None]) -> Generator[None]:
    """Do the rest after the block, also if memory has run out in it; other errors end the process."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if ran_out_of_memory(error):
            rest()
        raise
    rest()
