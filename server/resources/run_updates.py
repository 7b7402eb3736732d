"""Tells clients of both eras of the protocol when runs that they watch move, and when the list of runs does.

Newer clients hold one stream (`subscriptions/listen`). Older ones subscribe to each resource, and hear of
changes of the list once they have read it. Only what somebody wants is looked at.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from contextlib import aclosing, suppress
from functools import partial
from typing import Any

import anyio
from anyio.abc import TaskGroup
from mcp import MCPError
from mcp.server.context import ServerRequestContext
from mcp.server.session import ServerSession
from mcp.server.subscriptions import (
    ListenHandler,
    ResourcesListChanged,
    ResourceUpdated,
    SubscriptionBus,
)
from mcp.types import (
    INVALID_PARAMS,
    EmptyResult,
    SubscribeRequestParams,
    SubscriptionsListenRequestParams,
    SubscriptionsListenResult,
    UnsubscribeRequestParams,
)

from ...tools.wording import words
from ...training.errors import BackpropagateError
from ...training.logs import logger
from ...training.redact import scrub
from ...training.runs.folder import ENDED
from ...training.service import TrainingService
from ...training.untrusted import sanitized
from ..principal import principal_of
from .run_resources import SCHEME

LEAST_GAP_S = 1.0
"""Between two messages about the same run."""
LOOK_S = 2.0
"""Between two looks at whether there is another run."""
SEND_S = 5.0
"""A client that does not read for so long is not told any more."""
WATCHED = 200
"""Resources that one connection may watch."""

LIST = "resources/list"
Context = ServerRequestContext[Any, Any]


class RunUpdates:
    """What the clients of a running server want to hear, and the tasks that look for it.

    Args:
        bus: carries the news to the streams of newer clients.
    """

    def __init__(self, service: TrainingService, tasks: TaskGroup, bus: SubscriptionBus) -> None:
        self._service = service
        self._tasks = tasks
        self._bus = bus
        self._stream = ListenHandler(self._bus)
        self._wanted: Counter[str] = Counter()  # URIs and LIST, each with the number of those who want it
        self._sessions: dict[int, dict[str, ServerSession]] = {}  # of older clients, by connection
        self._following: set[str] = set()
        self._looking = False

    # --- who wants what -----------------------------------------------------------------------------
    async def listen(
        self, ctx: Context, params: SubscriptionsListenRequestParams
    ) -> SubscriptionsListenResult:
        """The stream of a newer client. What it may not see is not among what is acknowledged."""
        asked = params.notifications
        given = asked.resource_subscriptions or []
        _require_few(len(given))
        uris: list[str] = []
        live: set[str] = set()
        for uri in given:
            with suppress(MCPError):
                live |= await self._live_run(uri, ctx)
                uris.append(uri)
        honoured = asked.model_copy(update={"resource_subscriptions": uris or None})
        wanted = [*uris, LIST] if asked.resources_list_changed else uris
        self._want(wanted, live)
        try:
            return await self._stream(ctx, params.model_copy(update={"notifications": honoured}))
        finally:
            self._wanted -= Counter(wanted)

    async def subscribe(self, ctx: Context, params: SubscribeRequestParams) -> EmptyResult:
        """The wish of an older client."""
        uri = str(params.uri)
        self._hold(ctx, uri, await self._live_run(uri, ctx))
        return EmptyResult()

    async def unsubscribe(self, ctx: Context, params: UnsubscribeRequestParams) -> EmptyResult:
        self._forget(id(_connection(ctx.session)), str(params.uri))
        return EmptyResult()

    def list_was_read(self, ctx: Context) -> None:
        """An older client cannot ask for changes of the list: it is told of them once it has read it."""
        self._hold(ctx, LIST, set())

    async def _live_run(self, uri: str, ctx: Context) -> set[str]:
        """The run of a resource, if it has not ended.

        Raises:
            MCPError: this client knows no such run.
        """
        if not uri.startswith(SCHEME):
            return set()  # the others never change
        try:
            view = await self._service.of(principal_of(ctx.request)).get(_run_id(uri))
        except BackpropagateError as error:
            raise MCPError(INVALID_PARAMS, sanitized(scrub(error.sentence(words)))) from None
        if view.run_id != _run_id(uri):  # the same part may later match another run
            raise MCPError(INVALID_PARAMS, f"Watch the run by its whole id: {SCHEME}{view.run_id}.")
        return set() if view.status in ENDED else {view.run_id}

    def _hold(self, ctx: Context, key: str, live: set[str]) -> None:
        connection = _connection(ctx.session)
        held = self._sessions.get(id(connection))
        if held is None:
            held = self._sessions[id(connection)] = {}
            connection.exit_stack.callback(self._forget_all, id(connection))
        if key not in held:
            if key != LIST:
                _require_few(len(held.keys() - {LIST}) + 1)
            held[key] = ctx.session
            self._want([key], live)

    def _forget(self, connection: int, key: str) -> None:
        if self._sessions.get(connection, {}).pop(key, None) is not None:
            self._wanted -= Counter([key])

    def _forget_all(self, connection: int) -> None:
        self._wanted -= Counter(self._sessions.pop(connection, {}).keys())

    # --- look, and tell -----------------------------------------------------------------------------
    def _want(self, keys: Iterable[str], live: set[str]) -> None:
        self._wanted.update(keys)
        for run_id in self._run_ids() - self._following:
            self._start_following(run_id, moved=run_id in live)
        if self._wanted and not self._looking:
            self._looking = True
            self._tasks.start_soon(_safely, self._look)

    def _run_ids(self) -> set[str]:
        return {_run_id(key) for key in self._wanted if key.startswith(SCHEME)}

    def _start_following(self, run_id: str, *, moved: bool) -> None:
        self._following.add(run_id)
        self._tasks.start_soon(_safely, partial(self._follow, run_id, moved))

    async def _look(self) -> None:
        """Look for new, ended, resumed and removed runs until nobody wants anything."""
        try:
            before = await self._service.runs_changed()
            while self._wanted:
                await anyio.sleep(LOOK_S)
                now = await self._service.runs_changed()
                if now != before:
                    before = now
                    await self._tell(LIST)
                    await self._follow_resumed()
        finally:
            self._looking = False

    async def _follow_resumed(self) -> None:
        for run_id in self._run_ids() - self._following:
            if await self._goes_on(run_id) and run_id not in self._following:
                self._start_following(run_id, moved=True)

    async def _goes_on(self, run_id: str) -> bool:
        try:
            return (await self._service.get(run_id)).status not in ENDED
        except BackpropagateError:
            return False

    async def _follow(self, run_id: str, moved: bool) -> None:
        """Tell of a run until it has ended, or nobody wants to hear of it.

        Args:
            moved: whether it may have moved since its watchers could hear of it.
        """
        old, left = not moved, False  # what comes first had happened before
        try:
            async with aclosing(self._service.watch(run_id, tick_s=LEAST_GAP_S)) as batches:
                async for events in batches:
                    if left := run_id not in self._run_ids():
                        break
                    if events and not old:
                        moved = True
                        await self._tell_of_run(run_id)
                        await anyio.sleep(LEAST_GAP_S)
                    old = old and not events
        except BackpropagateError:
            moved = True  # it has been removed
        finally:
            self._following.discard(run_id)
        if left and run_id in self._run_ids():  # somebody has come meanwhile
            self._start_following(run_id, moved=True)
        elif moved:
            await self._tell_of_run(run_id, ended=True)

    async def _tell_of_run(self, run_id: str, *, ended: bool = False) -> None:
        for uri in [key for key in self._wanted if key.startswith(SCHEME) and _run_id(key) == run_id]:
            if ended or not uri.endswith("/card"):  # a card is written at the end
                await self._tell(uri)

    async def _tell(self, key: str) -> None:
        await self._bus.publish(ResourcesListChanged() if key == LIST else ResourceUpdated(uri=key))
        for connection, held in list(self._sessions.items()):
            if (session := held.get(key)) is None:
                continue
            with anyio.move_on_after(SEND_S) as sending:
                if key == LIST:
                    await session.send_resource_list_changed()
                else:
                    await session.send_resource_updated(key)
            if sending.cancelled_caught:
                self._forget(connection, key)


async def _safely(task: Callable[[], Awaitable[None]]) -> None:
    """A failure is only logged: the server goes on, and clients can still read."""
    try:
        await task()
    except Exception as error:
        logger().warning("updates_failed", error=type(error).__name__, untrusted=str(error))


def _connection(session: ServerSession) -> Any:
    """The SDK has no public name for what ends with a connection."""
    return session._connection  # pyright: ignore[reportPrivateUsage]


def _run_id(uri: str) -> str:
    return uri.removeprefix(SCHEME).partition("/")[0]


def _require_few(watched: int) -> None:
    if watched > WATCHED:
        raise MCPError(INVALID_PARAMS, f"A connection can watch {WATCHED} resources at most.")
