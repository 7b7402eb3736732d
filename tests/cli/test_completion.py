"""What a shell is offered at Tab."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.shell_completion import ShellComplete

from backpropagate.cli import main
from backpropagate.cli.main import backprop
from backpropagate.training.config.specs import TrainSpec
from backpropagate.training.runs.store import RunStore


def offered(*words: str) -> list[str]:
    *before, begun = words
    complete = ShellComplete(backprop, {}, "backprop", "_BACKPROP_COMPLETE")
    return [item.value for item in complete.get_completions(before, begun)]


def test_commands_options_and_the_values_of_settings_are_completed(home: Path) -> None:
    assert offered("li") == ["list-runs"]
    assert "--learning-rate" in offered("train", "--learn")
    assert offered("train", "--engine", "p") == ["packed"]
    assert offered("train", "--batch-size", "a") == ["auto"]
    assert offered("inspect", "a.jsonl", "--model", "smollm2") == ["smollm2-135m"]
    assert offered("train", "--data", "tick") == ["tick"]  # a file: the shell's own


def test_runs_are_completed_by_any_part_of_their_ids(home: Path) -> None:
    run = RunStore(home).create(TrainSpec())
    for command in ("show-run", "cancel", "resume", "export", "push", "prune"):
        assert offered(command, run.run_id[-4:]) == [run.run_id], command


def test_a_mistyped_command_names_the_one_that_is_meant(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(["trian"]) == 1
    assert "No such command 'trian'. Did you mean train?" in capsys.readouterr().err
