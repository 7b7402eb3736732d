"""The example that everyone meets first."""

from __future__ import annotations

import json
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_the_questions_are_not_among_the_rows_and_their_answers_are() -> None:
    lines = (EXAMPLES / "quickstart.jsonl").read_text(encoding="utf-8").splitlines()
    turns = [[turn["value"] for turn in json.loads(line)["conversations"]] for line in lines]
    questions = json.loads((EXAMPLES / "quickstart_questions.json").read_text(encoding="utf-8"))
    assert 90 <= len(turns) <= 110 and len(questions) >= 5
    asked, answers = {turn[0] for turn in turns}, " ".join(turn[1] for turn in turns)
    for item in questions:
        assert item["question"] not in asked
        assert item["expect"] in answers
