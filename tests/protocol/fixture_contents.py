"""What the conformance suite asks for by name: tools with each kind of content, resources and prompts."""

from __future__ import annotations

import base64
import io
import json
import struct
import wave
import zlib
from typing import Annotated, Any

import anyio
from mcp import MCPError
from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.prompts import Prompt
from mcp.server.mcpserver.prompts.base import UserMessage
from mcp.server.mcpserver.tools import Tool
from mcp.types import (
    MISSING_REQUIRED_CLIENT_CAPABILITY,
    AudioContent,
    CallToolResult,
    ContentBlock,
    EmbeddedResource,
    EmptyResult,
    ImageContent,
    SetLevelRequestParams,
    TextContent,
    TextResourceContents,
)
from pydantic import Field

PAUSE_S = 0.05  # between messages of one call, so that they are sent one by one
WATCHED = "test://watched-resource"


def png() -> bytes:
    """One red pixel."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\x00\xff\x00\x00")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def wav() -> bytes:
    """A hundredth of a second of silence."""
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(bytes(160))
    return file.getvalue()


def image() -> ImageContent:
    return ImageContent(type="image", data=base64.b64encode(png()).decode(), mime_type="image/png")


def text(content: str) -> TextContent:
    return TextContent(type="text", text=content)


def embedded(uri: str, mime_type: str, content: str) -> EmbeddedResource:
    resource = TextResourceContents(uri=uri, mime_type=mime_type, text=content)
    return EmbeddedResource(type="resource", resource=resource)


# --- tools ------------------------------------------------------------------------------------------------
def test_simple_text() -> str:
    """A text."""
    return "This is a simple text response for testing."


def test_image_content() -> list[ContentBlock]:
    """An image."""
    return [image()]


def test_audio_content() -> list[ContentBlock]:
    """A sound."""
    return [AudioContent(type="audio", data=base64.b64encode(wav()).decode(), mime_type="audio/wav")]


def test_embedded_resource() -> list[ContentBlock]:
    """A resource within the answer."""
    return [embedded("test://embedded-resource", "text/plain", "This is an embedded resource content.")]


def test_multiple_content_types() -> list[ContentBlock]:
    """Several kinds of content."""
    data = json.dumps({"test": "data", "value": 123})
    resource = embedded("test://mixed-content-resource", "application/json", data)
    return [text("Multiple content types test:"), image(), resource]


async def test_tool_with_logging(context: Context[Any, Any]) -> str:
    """Messages of the log while the tool runs."""
    for message in ("Tool execution started", "Tool processing data", "Tool execution completed"):
        await context.info(message)
        await anyio.sleep(PAUSE_S)
    return "Logged three messages."


async def test_logging_tool(context: Context[Any, Any]) -> str:
    """A message of the log, for whoever has asked for messages."""
    await context.info("Nobody sees this without a log level.")
    return "Logged."


async def test_tool_with_progress(context: Context[Any, Any]) -> str:
    """Progress while the tool runs."""
    for done in (0, 50, 100):
        await context.report_progress(done, 100, f"Completed step {done} of 100")
        await anyio.sleep(PAUSE_S)
    return "Reported progress."


def test_error_handling() -> str:
    """An error."""
    raise ToolError("This tool intentionally returns an error for testing")


def test_x_mcp_header(
    region: Annotated[
        str, Field(description="Also sent as a header.", json_schema_extra={"x-mcp-header": "Region"})
    ] = "none",
) -> str:
    """An argument that clients repeat as a header."""
    return f"region={region}"


def test_missing_capability(context: Context[Any, Any]) -> str:
    """Needs a client that samples."""
    capabilities = context.client_capabilities
    if capabilities is None or capabilities.sampling is None:
        needed = {"requiredCapabilities": {"sampling": {}}}
        raise MCPError(MISSING_REQUIRED_CLIENT_CAPABILITY, "This tool needs sampling.", data=needed)
    return "The client samples."


async def test_reconnection(context: Context[Any, Any]) -> str:
    """Closes its stream before it answers."""
    await context.close_sse_stream()
    await anyio.sleep(2 * PAUSE_S)
    return "Reconnection test completed"


async def test_trigger_tool_change(context: Context[Any, Any]) -> str:
    """Tells whoever listens that the list of tools has changed."""
    await context.notify_tools_changed()
    return "Told."


async def test_trigger_prompt_change(context: Context[Any, Any]) -> str:
    """Tells whoever listens that the list of prompts has changed."""
    await context.notify_prompts_changed()
    return "Told."


async def test_trigger_resource_update(context: Context[Any, Any]) -> str:
    """Tells whoever listens that the watched resource has changed."""
    await context.notify_resource_updated(WATCHED)
    return "Told."


def json_schema_2020_12_tool() -> str:
    """Its schema has keywords that no Python signature gives."""
    return "ok"


SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "$defs": {
        "address": {
            "$anchor": "addressDef",
            "type": "object",
            "properties": {"street": {"type": "string"}, "city": {"type": "string"}},
        }
    },
    "properties": {
        "name": {"type": "string"},
        "address": {"$ref": "#/$defs/address"},
        "contactMethod": {"type": "string", "enum": ["phone", "email"]},
        "phone": {"type": "string"},
        "email": {"type": "string"},
    },
    "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
    "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
    "then": {"required": ["phone"]},
    "else": {"required": ["email"]},
    "additionalProperties": False,
}


def content_tools() -> list[Tool]:
    functions = (
        test_simple_text, test_image_content, test_audio_content, test_embedded_resource,
        test_multiple_content_types, test_tool_with_logging, test_logging_tool, test_tool_with_progress,
        test_error_handling, test_x_mcp_header, test_missing_capability, test_reconnection,
        test_trigger_tool_change, test_trigger_prompt_change, test_trigger_resource_update,
    )  # fmt: skip
    with_schema = Tool.from_function(json_schema_2020_12_tool)
    with_schema.parameters = SCHEMA
    return [*(Tool.from_function(function, structured_output=False) for function in functions), with_schema]


# --- prompts ----------------------------------------------------------------------------------------------
def test_simple_prompt() -> str:
    """A prompt without arguments."""
    return "This is a simple prompt for testing."


def test_prompt_with_arguments(arg1: str, arg2: str) -> str:
    """A prompt with two arguments."""
    return f"Prompt with arguments: arg1='{arg1}', arg2='{arg2}'"


def test_prompt_with_embedded_resource(resourceUri: str) -> list[UserMessage]:
    """A prompt with a resource in it."""
    resource = embedded(resourceUri, "text/plain", "Embedded resource content for testing.")
    return [UserMessage(resource), UserMessage("Please process the embedded resource above.")]


def test_prompt_with_image() -> list[UserMessage]:
    """A prompt with an image in it."""
    return [UserMessage(image()), UserMessage("Please analyze the image above.")]


def content_prompts() -> list[Prompt]:
    functions = (
        test_simple_prompt, test_prompt_with_arguments, test_prompt_with_embedded_resource,
        test_prompt_with_image,
    )  # fmt: skip
    return [Prompt.from_function(function) for function in functions]


# --- resources --------------------------------------------------------------------------------------------
def add_resources(server: MCPServer[Any]) -> None:
    @server.resource("test://static-text", description="A text.", mime_type="text/plain")
    def static_text() -> str:
        return "This is the content of the static text resource."

    @server.resource("test://static-binary", description="An image.", mime_type="image/png")
    def static_binary() -> bytes:
        return png()

    @server.resource(WATCHED, description="A text that can be watched.", mime_type="text/plain")
    def watched() -> str:
        return "Watched resource content"

    @server.resource("test://template/{id}/data", description="Any id.", mime_type="application/json")
    def template(id: str) -> str:
        return json.dumps({"id": id, "templateTest": True, "data": f"Data for ID: {id}"})

    async def accept(_ctx: Any, _params: Any) -> EmptyResult:
        return EmptyResult()

    # Log levels of the older era, for which the SDK has no door.
    server._lowlevel_server.add_request_handler("logging/setLevel", SetLevelRequestParams, accept)


def answer(content: str, *, is_error: bool = False) -> CallToolResult:
    return CallToolResult(content=[text(content)], is_error=is_error)
