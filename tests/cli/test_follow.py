"""What a command prints of a run where there is no terminal."""

from __future__ import annotations

import pytest

from backpropagate.cli.follow import PlainDisplay
from backpropagate.training.events import Evaluated, Phase, Step


def test_progress_within_a_phase_is_not_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    made = [
        Phase(phase="generating", message=f"{tokens} tokens of the next", fraction=0.0)
        for tokens in range(200)
    ]
    display = PlainDisplay()
    display.show([Phase(phase="loading", message="loading the model"), *made])
    display.show([Phase(phase="generating", message="all answered", fraction=1.0)])
    first, *some, last = capsys.readouterr().err.splitlines()
    assert first == "  loading the model" and some[0] == "  0 tokens of the next"
    assert last == "  all answered" and len(some) < 20


def test_held_out_losses_and_the_last_step_are_lines(capsys: pytest.CaptureFixture[str]) -> None:
    steps = [Step(step=number, total_steps=50, loss=1.0) for number in range(1, 51)]
    PlainDisplay().show([Evaluated(step=0, loss=2.5), *steps, Evaluated(step=50, loss=0.25)])
    told = capsys.readouterr().err.splitlines()
    assert told[0] == "  held-out loss 2.5000 before training"
    assert told[-2:] == ["  step 50/50 · loss 1.0000", "  held-out loss 0.2500 after step 50"]
