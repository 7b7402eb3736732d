"""What the loop asks of the processes that train together."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from torch import Tensor

from ..plan import Plan
from .orders import Order, Told


class Ranks(Protocol):
    """The processes that train together, seen by one of them.

    All of them call the same methods in the same order. Each raises `RunInterruptedError` once one of them is
    gone.
    """

    rank: int
    size: int
    here: int
    """Ranks of each host, which follow each other: over them weights are sharded. 1 where hosts differ."""

    def say(self, order: Order, first: int = 0, second: int = 0, *, text: str = "") -> None:
        """Rank 0 only: what the others do next."""
        ...

    def exchange(self, *numbers: int) -> list[list[int]]:
        """The numbers of each rank, by rank; through the host, so that no GPU is waited for."""
        ...

    def spread(self, tensor: Tensor) -> None:
        """Rank 0's values, to all."""
        ...

    def reduce(self, tensor: Tensor) -> None:
        """The sum over all ranks, in rank 0; what the others have then is of no use."""
        ...

    def gather(self, whole: Tensor, shard: Tensor) -> None:
        """The shards of all ranks of this host, end to end; as work of the current stream.

        Args:
            whole: (here · bytes of a shard,), to write to.
            shard: this rank's, which may be its place in `whole`.
        """
        ...

    def require_all(self) -> None:
        """Raise if a rank is gone: what was computed since may be wrong."""
        ...


class Hears(Ranks, Protocol):
    """The processes, seen by one that is not rank 0."""

    def hear(self) -> Told:
        """What rank 0 says next."""
        ...


class _Alone:
    """A process without others."""

    rank, size, here = 0, 1, 1

    def say(self, order: Order, first: int = 0, second: int = 0, *, text: str = "") -> None:
        """Nobody listens."""

    def exchange(self, *numbers: int) -> list[list[int]]:
        return [list(numbers)]

    def spread(self, tensor: Tensor) -> None:
        """It has them."""

    def reduce(self, tensor: Tensor) -> None:
        """It is the sum."""

    def gather(self, whole: Tensor, shard: Tensor) -> None:
        whole.copy_(shard)

    def require_all(self) -> None:
        """Nobody is missing."""


ALONE = _Alone()


def is_sharded(plan: Plan, ranks: Ranks) -> bool:
    """Whether each rank has a shard of the layers' weights only: whole ones do not all stay on each GPU."""
    return plan.resident_layers is not None and ranks.here > 1


class Shortage(NamedTuple):
    """Memory ran out on some rank.

    Args:
        rank: the one whose part was the largest.
        said: what was said, if this rank was told.
        tokens, examples: of the largest part that it had to compute at once.
    """

    rank: int
    said: str
    tokens: int
    examples: int


def agreed_shortage(ranks: Ranks, said: str | None, tokens: int, examples: int) -> Shortage | None:
    """The shortage of all ranks, so that they go back together; None if there is none.

    Args:
        said: what was said when memory ran out here; None: it did not.
        tokens, examples: of the largest part here.
    """
    told = ranks.exchange(said is not None, tokens, examples)
    short = [(tokens, rank, examples) for rank, (ran_out, tokens, examples) in enumerate(told) if ran_out]
    if not short:
        return None
    tokens, rank, examples = max(short)
    return Shortage(rank, said or f"memory ran out on rank {rank} of {ranks.size}", tokens, examples)
