"""The news of a run, read once for all who follow it in this process."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import anyio
from anyio.lowlevel import RunVar

from ..events import Event
from .event_log import TAIL

POLL_S = 0.05
POLLS_PER_S = 200  # of all tails together, so that many do not keep other calls waiting
KEPT = 8  # pieces

_tails: RunVar[dict[Path, Tail]] = RunVar("tails")  # one for each event loop


class News(NamedTuple):
    """What was found behind an offset of a run's events.

    Args:
        ended: whether the run has ended.
        end: the offset after the events.
    """

    ended: bool
    events: list[Event]
    end: int


class Tail:
    """Followers take turns to read; what one finds is kept for the others.

    Args:
        read: finds the news after an offset.
    """

    def __init__(self, read: Callable[[int], Awaitable[News]]) -> None:
        self.followers = 0
        self._read = read
        self._turn = anyio.Lock()
        self._kept: dict[int, News] = {}  # by the offset where they begin
        self._quiet_at = -1  # the offset behind which there was nothing
        self._read_at = 0.0

    async def after(self, offset: int) -> News:
        """The events behind an offset, as soon as there are some; none if the run has ended there."""
        while True:
            async with self._turn:
                news = self._kept.get(offset)
                if news is None and self._pause_s(offset) <= 0:
                    news = await self._look(offset)
            if news and (news.events or news.ended):
                return news
            await anyio.sleep(max(0, self._pause_s(offset)))

    def _pause_s(self, offset: int) -> float:
        """Seconds until it is worth to look behind this offset again."""
        if offset != self._quiet_at:
            return 0
        return self._read_at + max(POLL_S, len(_tails.get()) / POLLS_PER_S) - time.monotonic()

    async def _look(self, offset: int) -> News:
        news = await self._read(offset)
        self._read_at = time.monotonic()
        self._quiet_at = -1 if news.events or news.ended else offset
        if news.events and news.end - offset <= TAIL:
            self._keep(offset, news)
        return news

    def _keep(self, offset: int, news: News) -> None:
        self._kept[offset] = news
        if len(self._kept) > KEPT:
            del self._kept[next(iter(self._kept))]


@contextmanager
def tail_of(path: Path, read: Callable[[int], Awaitable[News]]) -> Generator[Tail]:
    """The tail of the run in this folder, which goes with its last follower."""
    tails = _tails.get(dict[Path, Tail]())
    _tails.set(tails)
    tail = tails.setdefault(path, Tail(read))
    tail.followers += 1
    try:
        yield tail
    finally:
        tail.followers -= 1
        if not tail.followers:
            del tails[path]
