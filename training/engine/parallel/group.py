"""The processes as a group of torch.distributed: short messages through the host, tensors through NCCL."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor

from ...errors import InputError
from .heartbeat import LOADING, STEPPING, Heartbeat
from .orders import Order, Told

WAITING = timedelta(days=365)
"""For the next order: a checkpoint or a hot GPU may take long. Who is gone is noticed otherwise."""
EXCHANGING = timedelta(minutes=30)
"""For tensors: all ranks are in the same step."""

_all_gather: Any = next(  # torch has renamed it in 2.13
    getattr(dist, name) for name in ("all_gather_single", "all_gather_into_tensor") if hasattr(dist, name)
)


class Group:
    """`Ranks` over torch.distributed.

    Args:
        store: where the processes find each other, a `torch.distributed.Store`.
        here: ranks of each host, or 1: see `Ranks`.
        heartbeat: how long a rank may be silent depends on what it is told to do.
        lost: gives the error to raise when a message did not arrive: who is gone, and why.
        require_all: raises that error if somebody is known to be gone.

    Raises:
        InputError: this process belongs to a group of its program.
    """

    def __init__(
        self,
        store: Any,
        rank: int,
        size: int,
        *,
        here: int,
        on_gpu: bool,
        heartbeat: Heartbeat,
        lost: Callable[[], BaseException | None],
        require_all: Callable[[], None] = lambda: None,
    ) -> None:
        self.rank, self.size, self.here = rank, size, here
        self.ended = False
        """Whether rank 0 has told the others that this is the end."""
        self._heartbeat, self._lost, self._require_all = heartbeat, lost, require_all
        if dist.is_initialized():
            raise InputError(
                "This process already belongs to a group of torch.distributed.",
                hint="Set gpus=1, or end that group first.",
            )
        self._excepthook = sys.excepthook
        with self._together():
            dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=WAITING)
            nccl = on_gpu and dist.is_nccl_available()
            backend = "nccl" if nccl else "gloo"
            self._tensors: Any = dist.new_group(backend=backend, timeout=EXCHANGING)  # pyright: ignore[reportUnknownMemberType]
            self._of_host: Any = self._tensors
            if 1 < here < size:
                self._of_host, _ = dist.new_subgroups(here, timeout=EXCHANGING, backend=backend)  # pyright: ignore[reportUnknownMemberType]

    def say(self, order: Order, first: int = 0, second: int = 0, *, text: str = "") -> None:
        content = text.encode()
        self.ended = order is Order.END
        self._heartbeat.patience = LOADING if order is Order.LOAD else STEPPING
        with self._together():
            dist.broadcast(torch.tensor([order, first, second, len(content)]), 0)
            if content:
                dist.broadcast(torch.frombuffer(bytearray(content), dtype=torch.uint8), 0)

    def say_end(self) -> None:
        """Tell the others that this is the end, if they have not been told."""
        if not self.ended:
            self.say(Order.END)

    def hear(self) -> Told:
        """What rank 0 says next."""
        numbers = torch.zeros(4, dtype=torch.int64)
        with self._together():
            dist.broadcast(numbers, 0)
            order, first, second, length = cast("list[int]", numbers.tolist())  # pyright: ignore[reportUnknownMemberType]
            content = torch.zeros(length, dtype=torch.uint8)
            if length:
                dist.broadcast(content, 0)
        return Told(Order(order), first, second, bytes(content.numpy()).decode())

    def exchange(self, *numbers: int) -> list[list[int]]:
        mine = torch.tensor(numbers, dtype=torch.int64)
        told = [torch.zeros_like(mine) for _ in range(self.size)]
        with self._together():
            dist.all_gather(told, mine)  # pyright: ignore[reportUnknownMemberType]
        return [cast("list[int]", each.tolist()) for each in told]  # pyright: ignore[reportUnknownMemberType]

    def spread(self, tensor: Tensor) -> None:
        with self._together():
            dist.broadcast(tensor, 0, group=self._tensors)

    def reduce(self, tensor: Tensor) -> None:
        with self._together():
            dist.reduce(tensor, 0, group=self._tensors)  # pyright: ignore[reportUnknownMemberType]

    def gather(self, whole: Tensor, shard: Tensor) -> None:
        with self._together():
            _all_gather(whole, shard, group=self._of_host)

    def require_all(self) -> None:
        self._require_all()

    def abort(self) -> None:
        """End waits for tensors of a rank that is gone, from another thread."""
        self._tensors.abort()
        if self._of_host is not self._tensors:
            self._of_host.abort()

    def leave(self) -> None:
        """After the last message of all."""
        dist.destroy_process_group()
        sys.excepthook = self._excepthook  # torch has put the rank before the lines of the caller's errors

    @contextmanager
    def _together(self) -> Generator[None]:
        """A message that does not arrive, as the end of the rank that should have sent it."""
        try:
            yield
        except RuntimeError as error:  # of torch, which has no narrower one for a closed connection
            raise (self._lost() or error) from error
