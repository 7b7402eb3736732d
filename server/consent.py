"""The user's consent: the client asks its user for it; where it cannot, the answer says what consents.

An error of a tool whose next step is the same call with one of `CONSENTS` is a question. Before 2026-07-28
the server asks while the call is open; from then on the answer is the question, and the client repeats its
call.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from mcp import MCPError
from mcp.server.mcpserver import Context
from mcp.types import (
    ElicitRequest,
    ElicitRequestFormParams,
    ElicitResult,
    InputRequiredResult,
    ListRootsRequest,
)

from ..training.errors import BackpropagateError, DeclinedError
from ..training.redact import scrub
from ..training.untrusted import sanitized
from .client_roots import ASKED_IN_RESULT, KEY

CONSENTS = ("confirmed", "overwrite")
FORM: dict[str, Any] = {
    "type": "object",
    "properties": {"yes": {"type": "boolean", "title": "Yes, go on", "default": False}},
    "required": ["yes"],
}

Said = Literal["yes", "no", "not asked"]


def consents(context: Context[Any, Any]) -> dict[str, bool]:
    """The arguments that the user has consented to, in answer to an earlier question of this call.

    Raises:
        DeclinedError: the user said no.
    """
    given = {name: _said((context.input_responses or {}).get(name)) for name in CONSENTS}
    if "no" in given.values():
        raise DeclinedError("The user said no.")
    earlier = (context.request_state or "").split()
    return {name: True for name, said in given.items() if said == "yes" or name in earlier}


async def ask(
    error: BackpropagateError, context: Context[Any, Any], arguments: Mapping[str, Any]
) -> InputRequiredResult | str:
    """The argument that the user has consented to, or the question as the result of the call.

    Args:
        arguments: of the call that raised the error.

    Raises:
        DeclinedError: the user said no.
        BackpropagateError: `error`, if it is no question, or the user cannot be asked.
    """
    name = _consent(error)
    capabilities = context.client_capabilities
    if name is None or arguments.get(name) or capabilities is None or capabilities.elicitation is None:
        raise error
    words = f"{error.message} Replace it?" if name == "overwrite" else error.message
    question = ElicitRequest(
        params=ElicitRequestFormParams(message=sanitized(scrub(words)), requested_schema=FORM)
    )
    if (context.protocol_version or "") >= ASKED_IN_RESULT:
        answers = context.input_responses or {}
        if name in answers:  # nobody was there
            raise error
        # A client repeats its call with the answers to this question only.
        again = {KEY: ListRootsRequest()} if KEY in answers else {}
        agreed = " ".join(other for other in CONSENTS if arguments.get(other))
        return InputRequiredResult(input_requests={name: question, **again}, request_state=agreed or None)
    match await _asked(question, context):
        case "yes":
            return name
        case "no":
            raise DeclinedError("The user said no.")
        case _:
            raise error


def _consent(error: BackpropagateError) -> str | None:
    step = error.next
    if step is None or step.action != "ask_again" or len(step.arguments) != 1:
        return None
    return next((name for name in CONSENTS if step.arguments.get(name) is True), None)


async def _asked(question: ElicitRequest, context: Context[Any, Any]) -> Said:
    try:
        return _said(await context.session.send_request(question, ElicitResult))
    except MCPError:
        return "not asked"


def _said(answer: object) -> Said:
    """A client without a person at it answers `cancel`: that is not a no."""
    if not isinstance(answer, ElicitResult) or answer.action == "cancel":
        return "not asked"
    said_yes = answer.action == "accept" and (answer.content or {}).get("yes") is True
    return "yes" if said_yes else "no"
