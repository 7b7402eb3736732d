"""How to fine-tune well: one text, as a skill (SEP-2640) for clients that know these, and as a prompt.

An agent that has the skill needs no long instructions, which every conversation would pay for.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from mcp import MCPError
from mcp.server.extension import Extension, MethodBinding, ResourceBinding
from mcp.server.mcpserver.prompts import Prompt
from mcp.server.mcpserver.resources import TextResource
from mcp.types import INVALID_PARAMS, PaginatedRequestParams, RequestParams
from pydantic import Field

from ..training.untrusted import quoted

PROMPT = "fine_tune"
NAME = "fine-tuning"
URI = f"skill://{NAME}/SKILL.md"
FILE = Path(__file__).parent / "skills" / NAME / "SKILL.md"
CACHED = {"ttlMs": 3_600_000, "cacheScope": "public"}
FENCE = "---\n"


class SkillParams(RequestParams):
    """Of `skills/get`."""

    uri: str


@cache
def skill_text() -> str:
    """The file as it is; its digest must stay true while the server lives."""
    return FILE.read_text(encoding="utf-8")


def fine_tune(
    goal: Annotated[str, Field(description="What the model should do afterwards.")],
    file: Annotated[str, Field(description="The file, folder or Hub dataset that teaches it.")] = "",
) -> str:
    """Fine-tune a model on this machine, step by step, and prove whether it helped."""
    taught = f" The data: {file}" if file else ""
    return f"{_body()}\n\n# The task\n\nThe user's goal: {goal}{taught}"


def fine_tune_prompt() -> Prompt:
    """The skill with a goal, as a prompt that users can choose."""
    return Prompt.from_function(fine_tune, name=PROMPT, title="Fine-tune a model")


class Skills(Extension):
    """Lists the skill, and serves its file as a resource."""

    identifier = "io.modelcontextprotocol/skills"

    def resources(self) -> list[ResourceBinding]:
        found = _frontmatter()
        resource = TextResource(
            uri=URI,
            name=found["name"],
            description=found["description"],
            mime_type="text/markdown",
            text=skill_text(),
        )
        return [ResourceBinding(resource)]

    def methods(self) -> list[MethodBinding]:
        return [
            MethodBinding("skills/list", PaginatedRequestParams, _list),
            MethodBinding("skills/get", SkillParams, _get),
        ]


async def _list(_context: Any, _params: PaginatedRequestParams | None) -> dict[str, Any]:
    return {"skills": [_entry()], **CACHED}


async def _get(_context: Any, params: SkillParams) -> dict[str, Any]:
    if params.uri != URI:
        raise MCPError(INVALID_PARAMS, f"There is no skill {quoted(params.uri)}; there is {URI}.")
    return {"skill": _entry(), **CACHED}


def _entry() -> dict[str, Any]:
    content = skill_text().encode()
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    return {
        "uri": URI,
        "frontmatter": _frontmatter(),
        "resources": [{"uri": URI, "digest": digest, "size": len(content)}],
    }


def _frontmatter() -> dict[str, str]:
    """Our own file's: one `key: value` a line."""
    _, head, _ = skill_text().split(FENCE, 2)
    return dict(line.split(": ", 1) for line in head.splitlines())


def _body() -> str:
    return skill_text().split(FENCE, 2)[2].strip()
