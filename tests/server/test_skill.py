"""How to fine-tune well, as a skill and as a prompt; and every tool and argument that it names exists."""

from __future__ import annotations

import hashlib
import re
from typing import Any

import pytest
from mcp import Client, MCPError
from mcp.types import INVALID_PARAMS, TextContent, TextResourceContents

from backpropagate.server.app import build_server
from backpropagate.server.dashboard.mcp_app import URI as DASHBOARD
from backpropagate.server.skill import URI
from backpropagate.training.service import TrainingService

pytestmark = pytest.mark.anyio


async def requested(client: Client, method: str, **params: str) -> dict[str, Any]:
    """The answer to a request that the SDK's client has no name for."""
    return await client.session._dispatcher.send_raw_request(method, {"_meta": {}, **params})  # pyright: ignore


async def test_the_skill_is_listed_with_the_digest_of_what_can_be_read(service: TrainingService) -> None:
    async with Client(build_server(service)) as client:
        (content,) = (await client.read_resource(URI)).contents
        assert [resource.uri for resource in (await client.list_resources()).resources] == [URI, DASHBOARD]
        (entry,) = (await requested(client, "skills/list"))["skills"]
        assert (await requested(client, "skills/get", uri=URI))["skill"] == entry
        with pytest.raises(MCPError, match="There is no skill") as refused:
            await requested(client, "skills/get", uri="skill://other/SKILL.md")
    assert refused.value.error.code == INVALID_PARAMS
    assert isinstance(content, TextResourceContents) and content.mime_type == "text/markdown"
    (resource,) = entry["resources"]
    text = content.text.encode()
    assert resource["digest"] == f"sha256:{hashlib.sha256(text).hexdigest()}"
    assert resource["size"] == len(text) and entry["frontmatter"].keys() == {"name", "description"}


@pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])
async def test_the_prompt_holds_the_skill_and_the_goal_and_another_name_is_refused(
    service: TrainingService, mode: str
) -> None:
    async with Client(build_server(service), mode=mode) as client:
        assert [prompt.name for prompt in (await client.list_prompts()).prompts] == ["fine_tune"]
        got = await client.get_prompt("fine_tune", {"goal": "answer tickets", "file": "~/tickets.jsonl"})
        with pytest.raises(MCPError, match="There is no prompt 'fine'") as refused:
            await client.get_prompt("fine", {})
        with pytest.raises(MCPError, match="goal") as incomplete:
            await client.get_prompt("fine_tune", {})
    assert refused.value.error.code == incomplete.value.error.code == INVALID_PARAMS
    content = got.messages[0].content
    assert isinstance(content, TextContent) and not content.text.startswith("---")
    assert "answer tickets The data: ~/tickets.jsonl" in content.text


async def test_every_tool_and_argument_in_the_skill_exists(service: TrainingService) -> None:
    async with Client(build_server(service)) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        (content,) = (await client.read_resource(URI)).contents
    assert isinstance(content, TextResourceContents)
    calls = re.findall(r"`(\w+)\(([^`]*)\)`", content.text)
    assert len(calls) > 8
    for name, arguments in calls:
        assert name in tools, name
        given = set(re.findall(r"(\w+)=", arguments))
        assert given <= tools[name].input_schema["properties"].keys(), (name, given)
