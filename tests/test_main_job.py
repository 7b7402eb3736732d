"""The main job, end to end: an MCP client teaches a real model facts that it cannot know, and watches."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from facts import unseen_questions, write_dataset
from mcp import Client, StdioServerParameters, stdio_client

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


async def test_an_mcp_client_teaches_smollm2_ten_facts_and_sees_it_happen(
    home: Path, smollm2: Path, tmp_path: Path
) -> None:
    questions = unseen_questions()
    seen: list[tuple[float, str]] = []

    async def progress(value: float, total: float | None, message: str | None) -> None:
        seen.append((value, message or ""))

    server = StdioServerParameters(
        command=sys.executable,
        args=["-P", "-m", "backpropagate", "serve", "--root", str(tmp_path), "--root", str(smollm2)],
        env=dict(os.environ),
    )
    async with Client(stdio_client(server)) as client:
        result = await client.call_tool(
            "train",
            {
                "model": str(smollm2),
                "dataset": str(write_dataset(tmp_path / "facts.jsonl")),
                "steps": 40,
                "batch_size": 4,
                "learning_rate": 1e-3,
                "lora_r": 16,
                "questions": list(questions),
                "settings": {"evaluation": {"system": "", "max_new_tokens": 24}},
                "wait_s": 900,
            },
            progress_callback=progress,
        )
    assert not result.is_error, result.content
    run = result.structured_content
    assert run and run["status"] == "completed" and run["loss"] < 0.5 < run["first_loss"]
    answers = run["untrusted_answers"]
    assert len(answers) == len(questions) == 10
    right_before = sum(questions[answer["question"]] in answer["before"] for answer in answers)
    right_after = sum(questions[answer["question"]] in answer["after"] for answer in answers)
    assert right_before == 0
    assert right_after >= 9, answers
    assert any("step 40/40" in message or message == "completed" for _, message in seen)
    assert sum("loss" in message for _, message in seen) >= 5
