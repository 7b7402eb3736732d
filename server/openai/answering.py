"""The run that answers a chat completion: started, followed until it has ended, stopped when nobody waits."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from http import HTTPStatus

import anyio
import anyio.to_thread

from ...training.config.results import GeneratedAnswer, GenerateResult, Reply
from ...training.errors import InputError, from_record
from ...training.events import Said
from ...training.logs import logger
from ...training.requests.generate import generate_spec
from ...training.runs.folder import ENDED, Status
from ...training.runs.view import RunView
from .caller import Caller
from .chat_request import ChatRequest
from .errors import ApiError
from .models import asked_model

START_S = 60.0
"""A request whose run has not begun after so long is given up: another run has the device."""

RETRY_AFTER_S = 30
FORGETTING, LOOK_S = 50, 0.1


async def start(asked: ChatRequest, caller: Caller) -> str:
    """Start the run, and return its id.

    Raises:
        ApiError, BackpropagateError: the model or a message cannot be used.
    """
    *earlier, last = asked.turns
    spec = await anyio.to_thread.run_sync(
        lambda: generate_spec(
            asked_model(asked.model, caller.service.store),
            [last["content"]],
            caller.service.store,
            caller.paths,
            earlier=earlier,
            **asked.settings,
        )
    )
    return (await caller.service.submit(spec)).run_id


async def pieces(run_id: str, caller: Caller) -> AsyncGenerator[str]:
    """The text of the answer, as far as the run tells it while it makes it; ends with the run.

    Raises:
        ApiError: it has not begun in time.
    """
    begun, service = time.monotonic(), caller.service
    try:
        async with aclosing(service.watch(run_id, tick_s=1.0)) as watched:
            async for events in watched:
                for event in events:
                    if isinstance(event, Said):
                        yield event.text
                if time.monotonic() - begun > START_S:
                    begun = float("inf")
                    await _require_begun(run_id, caller)
    finally:
        with anyio.CancelScope(shield=True):
            if (await service.get(run_id)).status not in ENDED:
                await service.cancel(run_id, "nobody waits for the answer")


async def _require_begun(run_id: str, caller: Caller) -> None:
    if (await caller.service.get(run_id)).status is Status.QUEUED:
        raise ApiError(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "The device is busy with another run. Ask again later.",
            "model_busy",
            retry_after_s=RETRY_AFTER_S,
        )


async def forget(run_id: str, caller: Caller) -> None:
    """Remove the run of an answer that was given; its worker may hold it for a moment longer."""
    if (await caller.service.get(run_id)).status is not Status.COMPLETED:
        return
    for _ in range(FORGETTING):
        with suppress(InputError):
            await caller.service.delete(run_id)
            return
        await anyio.sleep(LOOK_S)
    logger().warning("answer_not_removed", run_id=run_id)


async def answer_of(run_id: str, caller: Caller) -> tuple[Reply, int]:
    """The answer of a run that has ended, and the tokens of the conversation before it.

    Raises:
        ApiError, BackpropagateError: there is none.
    """
    view = await caller.service.get(run_id)
    if view.error is not None:
        raise from_record(view.error)
    found = _only_answer(view)
    if found is None or not found.replies:
        raise ApiError(HTTPStatus.SERVICE_UNAVAILABLE, "The answer was stopped.", "answer_stopped")
    return found.replies[-1], found.prompt_tokens


def _only_answer(view: RunView) -> GeneratedAnswer | None:
    result = view.result
    return result.answers[0] if isinstance(result, GenerateResult) and result.answers else None
