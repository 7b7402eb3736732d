"""What a person types as an option is used, or named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from backpropagate.cli import main
from backpropagate.cli.options import given, setting_options


def typed(*words: str) -> dict[str, Any]:
    """The settings of a command line."""
    seen: dict[str, Any] = {}

    @click.command()
    @setting_options()
    def command(**values: Any) -> None:
        seen.update(given(values))

    CliRunner().invoke(command, list(words), catch_exceptions=False)
    return seen


@pytest.mark.parametrize(
    "words",
    [
        ("--lora-target-modules", "lm_head", "--lora-target-modules", "q_proj"),
        ("--lora-target-modules", '["lm_head", "q_proj"]'),
        ("--lora-target-modules", "lm_head, q_proj"),
        ("--target-modules", "lm_head", "--target-modules", "q_proj"),
    ],
)
def test_a_list_may_be_repeated_or_be_json_or_have_commas(words: tuple[str, ...]) -> None:
    assert list(typed(*words).values()) == [["lm_head", "q_proj"]]


def test_one_value_of_a_list_stays_a_word_and_a_question_may_have_commas() -> None:
    assert typed("--lora-target-modules", "attention") == {"lora_target_modules": "attention"}
    assert typed("--data", "a.jsonl") == {"dataset": "a.jsonl"}
    assert typed("--data", "a,b.jsonl", "--data", "c.jsonl") == {"dataset": ["a,b.jsonl", "c.jsonl"]}
    assert typed("--question", "Who, and why?") == {"questions": ["Who, and why?"]}
    assert typed("--question", '["Who?", "Why?"]', "--question", "How?") == {
        "questions": ["Who?", "Why?", "How?"]
    }


@pytest.mark.parametrize("option", ["--steps", "--lr", "--model", "--columns", "--max-steps"])
def test_an_option_with_one_value_that_is_given_twice_is_refused(
    home: Path, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(["train", "--data", "a.jsonl", option, "3", option, "4"]) == 1
    assert "given 2 times: 3, 4" in capsys.readouterr().err


def test_a_number_of_steps_that_is_none_is_refused_for_a_resumed_run_too(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(["train", "--resume", "a7f3", "--steps", "many"]) == 1
    assert "INPUT_VALIDATION_FAILED] steps: 'many'" in capsys.readouterr().err
