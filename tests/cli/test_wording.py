"""The command line names its own options, in lines that fit the terminal."""

from __future__ import annotations

from pathlib import Path

import pytest

from backpropagate.cli import main
from backpropagate.cli.wording import as_options, words
from backpropagate.cli.wrapped import wrapped
from backpropagate.training.next_step import then


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("Use max_seq_length=1024.", "Use --max-seq-length 1024."),
        ("Set held_out=0, or use on_bad_rows=skip.", "Set --held-out 0, or use --on-bad-rows skip."),
        ('Try engine="auto".', "Try --engine auto."),
        ("Use learning_rate=1e-4 or max_grad_norm=0.5", "Use --learning-rate 1e-4 or --max-grad-norm 0.5"),
        ('columns={"prompt": "Frage"} reads it.', '--columns \'{"prompt": "Frage"}\' reads it.'),
        ("load_in_4bit=true or merge_system=false", "--load-in-4bit or --no-merge-system"),
        ('Set encoding="cp1252".', "Set --encoding cp1252."),
        ("Set imatrix=true.", "Set --imatrix."),
        ("overwrite=true replaces it; dataset=… names it.", "--overwrite replaces it; --data … names it."),
        ("BACKPROPAGATE_TRAINING__STEPS=3 and other=4 stay.", None),
        ("steps: 0 is too small.", None),
    ],
)
def test_settings_in_messages_are_options(said: str, shown: str | None) -> None:
    assert as_options(said) == (shown or said)


def test_the_next_step_names_options_that_exist() -> None:
    assert words(then("ask_again", dataset="a b.jsonl", load_in_4bit=False)) == (
        "run it again with --data 'a b.jsonl' --no-load-in-4bit"
    )


def test_the_next_look_at_a_dataset_keeps_the_model_and_the_settings() -> None:
    step = then("inspect", dataset="/a b.csv", model="tiny", columns={"prompt": "Frage"}, dedupe="exact")
    assert words(step) == (
        """backprop inspect '/a b.csv' --model tiny --columns '{"prompt": "Frage"}' --dedupe exact"""
    )


def test_a_text_is_wrapped_with_its_indent_and_a_path_stays_whole() -> None:
    path = "/a/very/long/path/" + "x" * 90
    lines = wrapped(f"  adapter  {path} is the adapter", 11).splitlines()
    assert lines[0] == "  adapter" or path in lines[0]
    assert any(path in line for line in lines)


@pytest.mark.parametrize(
    "arguments",
    [
        ["info"],
        ["info", "--error-codes"],
        ["--help"],
        ["train", "--help"],
        ["export", "--help"],
        ["list-runs"],
    ],
)
def test_what_is_printed_fits_eighty_columns(
    arguments: list[str],
    home: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main.run(arguments) == 0
    long = [line for line in capsys.readouterr().out.splitlines() if len(line) > 80 and "/" not in line]
    assert not long


def test_lists_and_objects_are_options_that_the_command_line_reads() -> None:
    step = then(
        "plan",
        dataset=["a b.jsonl", "c.jsonl"],
        questions=["What is it?", "And why?"],
        columns={"prompt": "a", "completion": "b"},
    )
    line = words(step)
    assert line == (
        "backprop plan --data 'a b.jsonl' --data c.jsonl --question 'What is it?' --question 'And why?' "
        """--columns '{"prompt": "a", "completion": "b"}'"""
    )
