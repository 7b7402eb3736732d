"""The parameters of a chat completion: those that are known, each with its bounds; others are refused."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Annotated, Any, Literal, cast

from pydantic import Field, ValidationError

from ...training.config.specs import Group
from ...training.requests.openai_job import problem_of
from ...training.untrusted import quoted
from .errors import ApiError, not_known

MOST_TOKENS = 2048
"""Of an answer, as for every request for answers."""

NEUTRAL: dict[str, Any] = {
    "frequency_penalty": 0,
    "logit_bias": {},
    "logprobs": False,
    "modalities": ["text"],
    "n": 1,
    "presence_penalty": 0,
    "response_format": {"type": "text"},
    "service_tier": "auto",
    "tools": [],
}
"""Parameters that are not supported, with the value that asks for nothing: clients send it by habit."""

LABELS = {"metadata", "prompt_cache_key", "safety_identifier", "user"}
"""Parameters that say who or what asks; no answer depends on them."""

ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}


class StreamOptions(Group):
    include_usage: bool = False
    include_obfuscation: Literal[False] = False


class ChatRequest(Group):
    """A request, with the names and the defaults of OpenAI's API."""

    model: Annotated[str, Field(min_length=1, max_length=512)]
    messages: Annotated[list[dict[str, Any]], Field(min_length=1, max_length=1000)]
    temperature: Annotated[float, Field(ge=0, le=2)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    max_tokens: Annotated[int, Field(ge=1, le=MOST_TOKENS)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, le=MOST_TOKENS)] | None = None
    stop: str | Annotated[list[str], Field(max_length=4)] | None = None
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] | None = None
    store: bool = False
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of a request for answers."""
        stop = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return {
            "compare_base": False,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "max_new_tokens": self.max_completion_tokens or self.max_tokens or MOST_TOKENS,
            "seed": secrets.randbits(32) if self.seed is None else self.seed,
            "stop": stop,
            "stream": self.stream,
        }

    @property
    def turns(self) -> list[dict[str, str]]:
        """The conversation in turns of text, the last of the user.

        Raises:
            ApiError: it has something else.
        """
        turns = [_turn(message, f"messages.{place}") for place, message in enumerate(self.messages)]
        if turns[-1]["role"] != "user" or not turns[-1]["content"]:
            raise ApiError(
                400, "messages: should end with a message of the user.", "invalid_value", "messages"
            )
        return turns


def chat_request(given: Mapping[str, Any]) -> ChatRequest:
    """A request, strictly.

    Raises:
        ApiError: a parameter is not supported, or out of bounds.
    """
    asked = {
        name: value
        for name, value in given.items()
        if value is not None and name not in LABELS and not (name in NEUTRAL and value == NEUTRAL[name])
    }
    for name in asked:
        if name not in ChatRequest.model_fields:
            raise not_known(quoted(name)[1:-1], "is not supported for models of this server.")
    if "max_tokens" in asked and "max_completion_tokens" in asked:
        said = "max_tokens and max_completion_tokens are two names of one parameter. Give one."
        raise ApiError(400, said, "invalid_value", "max_tokens")
    try:
        return ChatRequest.model_validate(asked)
    except ValidationError as error:
        said = problem_of(error)
        raise ApiError(400, said, "invalid_value", said.partition(":")[0]) from None


def _turn(message: Mapping[str, Any], place: str) -> dict[str, str]:
    role = ROLES.get(str(message.get("role")))
    if role is None:
        said = f"{place}.role: should be {', '.join(ROLES)}, not {quoted(message.get('role'))}."
        raise ApiError(400, said, "invalid_value", f"{place}.role")
    for name, value in message.items():
        if name not in ("role", "content") and value not in (None, [], ""):
            raise not_known(f"{place}.{quoted(name)[1:-1]}", "is not supported: turns have text only.")
    return {"role": role, "content": _text(message.get("content"), f"{place}.content")}


def _text(content: object, place: str) -> str:
    if isinstance(content, str):
        return content
    parts = cast("list[object]", content) if isinstance(content, list) else [None]
    texts = [_part(part) for part in parts]
    if any(text is None for text in texts):
        raise ApiError(400, f"{place}: should be text, or parts of text.", "invalid_value", place)
    return "".join(text or "" for text in texts)


def _part(part: object) -> str | None:
    fields = cast("dict[str, Any]", part) if isinstance(part, dict) else {}
    text = fields.get("text")
    return text if fields.get("type") == "text" and isinstance(text, str) else None
