"""Tools of the conformance suite that ask the client: within a call, or by a result that asks for input."""

from __future__ import annotations

import json
from typing import Any

from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.prompts import Prompt
from mcp.server.mcpserver.tools import Tool
from mcp.types import (
    CreateMessageRequest,
    CreateMessageRequestParams,
    CreateMessageResult,
    ElicitRequest,
    ElicitRequestFormParams,
    ElicitResult,
    InputRequest,
    InputRequiredResult,
    ListRootsRequest,
    ListRootsResult,
    SamplingMessage,
    TextContent,
)

Asking = Context[Any, Any]


def form(**properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


def question(message: str, **properties: dict[str, Any]) -> ElicitRequest:
    return ElicitRequest(params=ElicitRequestFormParams(message=message, requested_schema=form(**properties)))


def name_question(message: str = "What is your name?") -> ElicitRequest:
    return question(message, name={"type": "string"})


def sampling(content: str, max_tokens: int) -> CreateMessageRequest:
    message = SamplingMessage(role="user", content=TextContent(type="text", text=content))
    return CreateMessageRequest(params=CreateMessageRequestParams(messages=[message], max_tokens=max_tokens))


def asks(state: str | None = None, **requests: InputRequest) -> InputRequiredResult:
    return InputRequiredResult(input_requests=requests, request_state=state)


def said(context: Asking, key: str) -> dict[str, Any] | None:
    """The form that the client has filled in; None if it did not."""
    found = (context.input_responses or {}).get(key)
    return found.content if isinstance(found, ElicitResult) and found.content is not None else None


# --- within a call ----------------------------------------------------------------------------------------
async def test_sampling(prompt: str, context: Asking) -> str:
    """Lets the client's model answer."""
    if context.client_capabilities is None or context.client_capabilities.sampling is None:
        raise ToolError("The client does not sample.")
    message = SamplingMessage(role="user", content=TextContent(type="text", text=prompt))
    result = await context.session.create_message(
        [message], max_tokens=100, related_request_id=context.request_id
    )
    assert isinstance(result.content, TextContent)
    return f"LLM response: {result.content.text}"


async def _elicited(context: Asking, message: str, schema: dict[str, Any]) -> str:
    if context.client_capabilities is None or context.client_capabilities.elicitation is None:
        raise ToolError("The client does not ask its user.")
    result = await context.session.elicit_form(message, schema, context.request_id)
    return f"action={result.action}, content={json.dumps(result.content)}"


async def test_elicitation(message: str, context: Asking) -> str:
    """Asks the user for a name and an address."""
    schema = form(
        username={"type": "string", "description": "User's response"},
        email={"type": "string", "description": "User's email address"},
    )
    return f"User response: {await _elicited(context, message, schema)}"


async def test_elicitation_sep1034_defaults(context: Asking) -> str:
    """Asks with a default for each primitive type."""
    schema = form(
        name={"type": "string", "default": "John Doe"},
        age={"type": "integer", "default": 30},
        score={"type": "number", "default": 95.5},
        status={"type": "string", "enum": ["active", "inactive", "pending"], "default": "active"},
        verified={"type": "boolean", "default": True},
    )
    return f"Elicitation completed: {await _elicited(context, 'Who are you?', schema)}"


async def test_elicitation_sep1330_enums(context: Asking) -> str:
    """Asks with each kind of choice."""
    plain = ["option1", "option2", "option3"]
    titled = [{"const": f"value{number}", "title": f"Option {number}"} for number in (1, 2, 3)]
    schema = form(
        untitledSingle={"type": "string", "enum": plain},
        titledSingle={"type": "string", "oneOf": titled},
        legacyEnum={"type": "string", "enum": ["opt1", "opt2"], "enumNames": ["Option One", "Option Two"]},
        untitledMulti={"type": "array", "items": {"type": "string", "enum": plain}},
        titledMulti={"type": "array", "items": {"anyOf": titled}},
    )
    return f"Elicitation completed: {await _elicited(context, 'Which?', schema)}"


# --- by a result ------------------------------------------------------------------------------------------
def test_input_required_result_elicitation(context: Asking) -> str | InputRequiredResult:
    """Asks for a name."""
    form = said(context, "user_name")
    return asks(user_name=name_question()) if form is None else f"Hello, {form.get('name')}!"


def test_streaming_elicitation(context: Asking) -> str | InputRequiredResult:
    """Asks for a name, without a request of its own in the stream."""
    return test_input_required_result_elicitation(context)


def test_input_required_result_sampling(context: Asking) -> str | InputRequiredResult:
    """Asks the client's model."""
    found = (context.input_responses or {}).get("capital_question")
    if isinstance(found, CreateMessageResult) and isinstance(found.content, TextContent):
        return f"The model said: {found.content.text}"
    return asks(capital_question=sampling("What is the capital of France?", 100))


def test_input_required_result_list_roots(context: Asking) -> str | InputRequiredResult:
    """Asks for the client's roots."""
    found = (context.input_responses or {}).get("client_roots")
    if isinstance(found, ListRootsResult):
        return f"The client has {len(found.roots)} roots."
    return asks(client_roots=ListRootsRequest())


def test_input_required_result_request_state(context: Asking) -> str | InputRequiredResult:
    """Asks, and wants its state back."""
    if said(context, "confirm") is not None and context.request_state == "asked":
        return "state-ok: confirmed"
    return asks("asked", confirm=question("Please confirm", ok={"type": "boolean"}))


def test_input_required_result_tampered_state(context: Asking) -> str | InputRequiredResult:
    """As before; a state that was changed on the way does not come this far."""
    return test_input_required_result_request_state(context)


def test_input_required_result_multiple_inputs(context: Asking) -> str | InputRequiredResult:
    """Asks three kinds of questions at once."""
    if {"user_name", "greeting", "client_roots"} <= (context.input_responses or {}).keys():
        return "All inputs received."
    return asks(
        "three",
        user_name=name_question(),
        greeting=sampling("Generate a greeting", 50),
        client_roots=ListRootsRequest(),
    )


def test_input_required_result_multi_round(context: Asking) -> str | InputRequiredResult:
    """Asks twice; the state carries the first answer."""
    state: dict[str, Any] = json.loads(context.request_state or "{}")
    name, color = said(context, "step1"), said(context, "step2")
    if color is not None and "name" in state:
        return f"{state['name']} likes {color.get('color')}."
    if name is not None and state:
        asked = question("Step 2: What is your favorite color?", color={"type": "string"})
        return asks(json.dumps({"round": 2, "name": name.get("name")}), step2=asked)
    return asks(json.dumps({"round": 1}), step1=name_question("Step 1: What is your name?"))


def test_input_required_result_capabilities(context: Asking) -> InputRequiredResult:
    """Asks only what this client can answer."""
    declared = context.client_capabilities
    requests: dict[str, InputRequest] = {}
    if declared and declared.sampling is not None:
        requests["sample"] = sampling("Say hello", 50)
    if declared and declared.elicitation is not None:
        requests["ask"] = name_question()
    return asks("limited", **requests)


def test_input_required_result_prompt(context: Asking) -> str | InputRequiredResult:
    """A prompt that asks before it is told."""
    form = said(context, "user_context")
    if form is None:
        asked = question("What context should the prompt use?", context={"type": "string"})
        return asks(user_context=asked)
    return f"Use this context: {form.get('context')}"


def question_tools() -> list[Tool]:
    functions = (
        test_sampling, test_elicitation, test_elicitation_sep1034_defaults, test_elicitation_sep1330_enums,
        test_streaming_elicitation, test_input_required_result_elicitation,
        test_input_required_result_sampling, test_input_required_result_list_roots,
        test_input_required_result_request_state, test_input_required_result_tampered_state,
        test_input_required_result_multiple_inputs, test_input_required_result_multi_round,
        test_input_required_result_capabilities,
    )  # fmt: skip
    return [Tool.from_function(function, structured_output=False) for function in functions]


def question_prompts() -> list[Prompt]:
    return [Prompt.from_function(test_input_required_result_prompt)]
