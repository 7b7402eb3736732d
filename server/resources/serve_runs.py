"""The requests about runs as resources: the list, completion of ids, and who is told of changes."""

from __future__ import annotations

from typing import Any

from mcp.server import MCPServer, NotificationOptions
from mcp.types import (
    CompleteRequestParams,
    CompleteResult,
    Completion,
    EmptyResult,
    ListResourcesResult,
    PaginatedRequestParams,
    Resource,
    ResourceTemplateReference,
    SubscribeRequestParams,
    SubscriptionsListenRequestParams,
    SubscriptionsListenResult,
    UnsubscribeRequestParams,
)

from ...training.redact import scrub
from ...training.runs.view import RunLine
from ...training.service import TrainingService
from ...training.untrusted import sanitized, shown_path
from ..principal import principal_of
from .run_resources import JSON, SCHEME, add_run_resources
from .run_updates import Context, RunUpdates

LISTED = 20
COMPLETED = 100  # the protocol's limit
TOLD_BY_STREAM = "2026-07-28"
"""From this version of the protocol on, a client hears of changes on a stream that it has opened."""


def serve_runs(server: MCPServer[Any], service: TrainingService) -> None:
    """Let the server offer runs as resources; its lifespan yields a `RunUpdates`."""
    add_run_resources(server, service)

    async def listed(ctx: Context, _params: PaginatedRequestParams | None) -> ListResourcesResult:
        if ctx.protocol_version < TOLD_BY_STREAM:
            _updates(ctx).list_was_read(ctx)
        runs, _ = await service.of(principal_of(ctx.request)).list(limit=LISTED)
        return ListResourcesResult(resources=[*await server.list_resources(), *map(_resource, runs)])

    async def complete(ctx: Context, params: CompleteRequestParams) -> CompleteResult:
        ours = isinstance(params.ref, ResourceTemplateReference) and params.ref.uri.startswith(SCHEME)
        if not ours or params.argument.name != "run_id":
            return CompleteResult(completion=Completion(values=[]))
        found = await service.of(principal_of(ctx.request)).ids(params.argument.value)
        shown = Completion(values=found[:COMPLETED], total=len(found), has_more=len(found) > COMPLETED)
        return CompleteResult(completion=shown)

    low_level = server._lowlevel_server  # pyright: ignore[reportPrivateUsage]
    low_level.add_request_handler("resources/list", PaginatedRequestParams, listed)
    low_level.add_request_handler("completion/complete", CompleteRequestParams, complete)
    low_level.add_request_handler("subscriptions/listen", SubscriptionsListenRequestParams, _listen)
    low_level.add_request_handler("resources/subscribe", SubscribeRequestParams, _subscribe)
    low_level.add_request_handler("resources/unsubscribe", UnsubscribeRequestParams, _unsubscribe)
    _announce_list_changes(low_level)


async def _listen(ctx: Context, params: SubscriptionsListenRequestParams) -> SubscriptionsListenResult:
    return await _updates(ctx).listen(ctx, params)


async def _subscribe(ctx: Context, params: SubscribeRequestParams) -> EmptyResult:
    return await _updates(ctx).subscribe(ctx, params)


async def _unsubscribe(ctx: Context, params: UnsubscribeRequestParams) -> EmptyResult:
    return await _updates(ctx).unsubscribe(ctx, params)


def _updates(ctx: Context) -> RunUpdates:
    found = ctx.lifespan_context
    assert isinstance(found, RunUpdates)
    return found


def _announce_list_changes(low_level: Any) -> None:
    """Older clients are told at the start; every transport asks for these options without any of its own."""
    make = low_level.create_initialization_options

    def options(announced: NotificationOptions | None = None, *more: Any, **named: Any) -> Any:
        return make(announced or NotificationOptions(resources_changed=True), *more, **named)

    low_level.create_initialization_options = options


def _resource(run: RunLine) -> Resource:
    return Resource(
        uri=f"{SCHEME}{run.run_id}",
        name=run.run_id,
        title=sanitized(scrub(f"{run.kind} of {shown_path(run.model)}, {run.status}")),
        mime_type=JSON,
    )
