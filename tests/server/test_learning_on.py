"""A client teaches two things in turn, sees what is remembered, asks, compares and exports, over a pipe."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, StdioServerParameters, stdio_client
from tiny_model import build_quick_learner

pytestmark = pytest.mark.anyio


def write_task(path: Path, answer: str) -> str:
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"{path.stem} {number}?"},
                {"role": "assistant", "content": answer},
            ]
        }
        for number in range(40)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.mark.nightly
@pytest.mark.slow
async def test_a_client_teaches_two_tasks_and_uses_the_model(home: Path, tmp_path: Path) -> None:
    model = build_quick_learner(tmp_path / "quick")
    tasks = [
        {"name": name, "dataset": write_task(tmp_path / f"{name}.jsonl", name)} for name in ("law", "tax")
    ]
    command = ["-P", "-m", "backpropagate", "serve", "--root", str(tmp_path)]
    server = StdioServerParameters(command=sys.executable, args=command, env=dict(os.environ))
    async with Client(stdio_client(server)) as client:

        async def call(tool: str, **arguments: Any) -> dict[str, Any]:
            answer = await client.call_tool(tool, {**arguments, "wait_s": 300})
            assert not answer.is_error and answer.structured_content, answer.content
            return answer.structured_content

        settings = {"training": {"threads": 1}, "learning_rate": 1e-2}
        taught = await call("multi_run", model=str(model), tasks=tasks, steps_per_run=40, settings=settings)
        assert taught["status"] == "completed" and taught["verdict"]
        law, tax = taught["ledger"]
        assert "'law'" in law and "forgotten" in law and "'tax'" in tax
        run = taught["run_id"]
        recorded = (await call("get_run", run_id=run, detail="full"))["untrusted_result"]
        matrix = [entry["scores"] for entry in recorded["ledger"]["runs"]]
        assert [len(scores) for scores in matrix] == [1, 2]

        asked = await call("generate", source=run, prompts=["tax 3?"], max_new_tokens=8)
        (answer,) = asked["untrusted_answers"]
        assert answer["before"] != answer["after"] == "tax"

        compared = await call("evaluate", source=run, metrics=["loss", "exact_match"])
        assert compared["verdict"] == "better"
        assert [task["task"] for task in compared["tasks"]] == ["law", "tax"]

        exported = await call("export_gguf", source=run, quantization="f16")
        assert Path(exported["path"]).stat().st_size > 0 and exported["path"].endswith(".gguf")
        listed = await client.call_tool("list_runs", {})
    assert listed.structured_content
    kinds = [entry["kind"] for entry in listed.structured_content["runs"]]
    assert kinds.count("multi_run") == 1 and "export" in kinds
