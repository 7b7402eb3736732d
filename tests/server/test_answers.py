"""What a model sees of an answer, whether its client shows it the fields or the text."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from mcp import Client
from mcp.types import TextContent
from pydantic import Field

from backpropagate.server.answer import answer_of
from backpropagate.tools.context import ToolResult

from .conftest import Trained

pytestmark = pytest.mark.anyio

BUDGET = 8_000
"""Characters of about 2,000 tokens."""


def numbers(node: Any) -> list[float]:
    if isinstance(node, dict):
        return [found for value in node.values() for found in numbers(value)]
    if isinstance(node, list):
        return [found for value in node for found in numbers(value)]
    return [node] if isinstance(node, float) else []


def empty(node: Any) -> list[str]:
    parts = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [str(name) for name, value in parts if value in ("", [], {}, None)] + [
        inner for _, value in parts for inner in empty(value)
    ]


async def test_fields_and_text_of_a_training_are_both_complete_short_and_name_the_next_call(
    trained: Trained,
) -> None:
    run_id = trained.fields["run_id"]
    async with Client(trained.server) as client:
        for answer in (
            trained.answer,
            await client.call_tool("get_run", {"run_id": run_id}),
            await client.call_tool("list_runs", {}),
            await client.call_tool("inspect_dataset", {"dataset": str(trained.data)}),
            await client.call_tool("gpu_status", {}),
        ):
            fields, content = answer.structured_content, answer.content[0]
            assert not answer.is_error and fields and isinstance(content, TextContent)
            assert max(len(json.dumps(fields)), len(content.text)) < BUDGET
            assert all(len(re.sub(r"e.*|[.-]|^0[.0]*", "", str(value))) <= 4 for value in numbers(fields))
            assert not empty(fields)
            assert "next" not in fields or fields["next"] in content.text
    fields, content = trained.fields, trained.answer.content[0]
    assert isinstance(content, TextContent)
    assert "survives_client" not in fields
    for value in (
        run_id,
        fields["loss_curve"],
        fields["verdict"],
        fields["data"],
        fields["engine"],
        fields["adapter_path"],
    ):
        assert value in content.text
    assert fields["untrusted_answers"][0]["after"] in content.text


def test_a_result_has_few_digits_nothing_empty_and_what_is_promised() -> None:
    class Result(ToolResult):
        loss: float = 1.23456789
        rate: float = 0.000212345
        tokens: float = 123456.7
        nothing: list[str] = Field(default_factory=list[str])
        runs: list[str]
        parts: dict[str, Any]
        usual: bool = True

        def text(self) -> str:
            return "text"

    made = Result(loss=2.34567891, rate=0.00021238, tokens=123456.9, runs=[], parts={"a": "", "b": 1.00001})
    assert answer_of(made).structured_content == {
        "loss": 2.346, "rate": 0.0002124, "tokens": 123500, "runs": [], "parts": {"b": 1.0},
    }  # fmt: skip
