"""Ranks as threads of one process: the same messages as between processes, without any process."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue

import torch
from torch import Tensor

from backpropagate.training.engine.follow import follow
from backpropagate.training.engine.load_together import load_together
from backpropagate.training.engine.loaded_model import ModelStep, StepModel
from backpropagate.training.engine.parallel.orders import Order, Told
from backpropagate.training.engine.parallel.ranks import Ranks
from backpropagate.training.engine.plan import Data, Plan
from backpropagate.training.events import Report

PATIENCE_S = 60.0


class Meeting:
    """Where the threads wait for each other, and what each has brought."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.orders: list[SimpleQueue[Told]] = [SimpleQueue() for _ in range(size)]
        self._barrier = threading.Barrier(size)
        self._brought: list[object] = [None] * size

    def all_of(self, rank: int, thing: object) -> list[object]:
        self._brought[rank] = thing
        self._barrier.wait(PATIENCE_S)
        brought = list(self._brought)
        self._barrier.wait(PATIENCE_S)
        return brought


class ThreadRank:
    """One of them; see `Ranks`."""

    def __init__(self, meeting: Meeting, rank: int) -> None:
        self.rank, self.size, self.here = rank, meeting.size, meeting.size
        self._meeting = meeting
        self.heard: list[Order] = []
        self.gathered: list[int] = []
        """Bytes of each shard that it has given."""
        self.ended = False

    def say(self, order: Order, first: int = 0, second: int = 0, *, text: str = "") -> None:
        self.ended = order is Order.END
        for orders in self._meeting.orders[1:]:
            orders.put(Told(order, first, second, text))

    def hear(self) -> Told:
        told = self._meeting.orders[self.rank].get(timeout=PATIENCE_S)
        self.heard.append(told.order)
        return told

    def exchange(self, *numbers: int) -> list[list[int]]:
        return [[*each] for each in self._meeting.all_of(self.rank, numbers)]  # pyright: ignore

    def spread(self, tensor: Tensor) -> None:
        first = self._meeting.all_of(self.rank, tensor.clone())[0]
        assert isinstance(first, Tensor)
        tensor.copy_(first)

    def reduce(self, tensor: Tensor) -> None:
        total = sum(self._meeting.all_of(self.rank, tensor.clone()))
        tensor.copy_(total if self.rank == 0 else torch.full_like(tensor, torch.nan))  # pyright: ignore

    def gather(self, whole: Tensor, shard: Tensor) -> None:
        self.gathered.append(len(shard))
        whole.copy_(torch.cat([*self._meeting.all_of(self.rank, shard.clone())]))  # pyright: ignore

    def require_all(self) -> None:
        """Threads do not die alone."""


class OnThreads:
    """A plan's model with so many ranks; the others follow in threads until `joined`."""

    def __init__(
        self, size: int, plan: Plan, data: Data, load: Callable[[Plan, Ranks], ModelStep], report: Report
    ) -> None:
        meeting = Meeting(size)
        self.others = [ThreadRank(meeting, rank) for rank in range(1, size)]
        self._threads = [
            threading.Thread(target=follow, args=(other, lambda _: data), daemon=True)
            for other in self.others
        ]
        for thread in self._threads:
            thread.start()
        self._first = ThreadRank(meeting, 0)
        try:
            step = load_together(plan, load, self._first)
        except MemoryError:
            self.joined()
            raise
        self.model = StepModel(step, plan, load, report, self._first)

    def joined(self) -> None:
        """Once rank 0 has said that this is the end, which it may leave to this call."""
        if not self._first.ended:
            self._first.say(Order.END)
        for thread in self._threads:
            thread.join(PATIENCE_S)
            assert not thread.is_alive()
