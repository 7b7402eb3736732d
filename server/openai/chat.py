"""/v1/chat/completions: a tuned model's answer, whole or while it is made."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from ...training.config.results import Reply
from ...training.errors import BackpropagateError
from .answering import answer_of, forget, pieces, start
from .body import json_body
from .caller import Caller
from .chat_request import ChatRequest, chat_request
from .errors import ApiError, api_error
from .pages import Object


async def complete_chat(request: Request, caller: Caller) -> Response:
    """POST: answer a conversation."""
    asked = chat_request(await json_body(request))
    run_id = await start(asked, caller)
    request.state.runs = [run_id]
    completion = Completion(run_id, asked, caller)
    after = None if asked.store else BackgroundTask(forget, run_id, caller)
    if not asked.stream:
        return JSONResponse(await completion.whole(), background=after)
    chunks = completion.chunks()
    first = await anext(chunks)  # before the status is sent: an error of the model has its own
    return StreamingResponse(_sent(first, chunks), media_type="text/event-stream", background=after)


@dataclass(frozen=True)
class Completion:
    """A chat completion and the run behind it."""

    run_id: str
    asked: ChatRequest
    caller: Caller
    created: int = field(default_factory=lambda: int(time.time()))

    async def whole(self) -> Object:
        """Raises ApiError, BackpropagateError: there is no answer."""
        async with aclosing(pieces(self.run_id, self.caller)) as told:
            async for _ in told:
                pass
        reply, prompt_tokens = await answer_of(self.run_id, self.caller)
        message = {"role": "assistant", "content": reply.text, "refusal": None}
        choice = {"index": 0, "message": message, "finish_reason": _reason(reply), "logprobs": None}
        return {**self._object("chat.completion"), "choices": [choice], "usage": _usage(reply, prompt_tokens)}

    async def chunks(self) -> AsyncGenerator[Object]:
        """Raises as `whole`, before the first chunk if the model says nothing."""
        said = ""
        async with aclosing(pieces(self.run_id, self.caller)) as told:
            async for piece in told:
                yield self._chunk({"content": piece} if said else {"role": "assistant", "content": piece})
                said += piece
        reply, prompt_tokens = await answer_of(self.run_id, self.caller)
        if not reply.text.startswith(said):  # it was begun anew with less memory, or a secret was taken out
            raise ApiError(HTTPStatus.SERVICE_UNAVAILABLE, "The answer was begun anew.", "answer_changed")
        rest = reply.text[len(said) :]
        if rest or not said:
            yield self._chunk({"content": rest} if said else {"role": "assistant", "content": rest})
        yield self._chunk({}, _reason(reply))
        if self.asked.stream_options.include_usage:
            yield {**self._chunk({}), "choices": [], "usage": _usage(reply, prompt_tokens)}

    def _chunk(self, delta: Object, finish_reason: str | None = None) -> Object:
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason, "logprobs": None}
        return {**self._object("chat.completion.chunk"), "choices": [choice]}

    def _object(self, kind: str) -> Object:
        return {
            "id": f"chatcmpl-{self.run_id}",
            "object": kind,
            "created": self.created,
            "model": self.asked.model,
            "system_fingerprint": None,
        }


async def _sent(first: Object, chunks: AsyncGenerator[Object]) -> AsyncGenerator[str]:
    """Server-sent events. An error that comes after the first of them can only be told in another."""
    try:
        async with aclosing(chunks):
            yield _event(first)
            async for chunk in chunks:
                yield _event(chunk)
    except ApiError as error:
        yield _event({"error": error.record})
    except BackpropagateError as error:
        yield _event({"error": api_error(error).record})
    yield "data: [DONE]\n\n"


def _event(data: Object) -> str:
    return f"data: {json.dumps(data)}\n\n"


def _reason(reply: Reply) -> str:
    return "stop" if reply.stopped else "length"


def _usage(reply: Reply, prompt_tokens: int) -> dict[str, Any]:
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": reply.tokens,
        "total_tokens": prompt_tokens + reply.tokens,
    }
