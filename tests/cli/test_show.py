"""What is printed of one run."""

from __future__ import annotations

from pathlib import Path

import pytest
from finished_runs import finished_run

from backpropagate.cli import main
from backpropagate.training.config.specs import ModelGroup, TrainSpec
from backpropagate.training.errors import RunInterruptedError
from backpropagate.training.next_step import then
from backpropagate.training.runs.folder import Status
from backpropagate.training.runs.store import RunStore


def test_the_next_step_of_an_error_is_printed_once(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = RunStore(home)
    run = finished_run(store, TrainSpec(model=ModelGroup(name="smollm2-135m")), {}, Status.INTERRUPTED)
    lost = RunInterruptedError("Its worker was killed.", next=then("resume", run_id=run.run_id))
    store.finish(run, run.state().model_copy(update={"error": lost.record()}))
    assert main.run(["show-run", run.run_id]) == 0
    shown = capsys.readouterr().out
    assert "Its worker was killed." in shown and shown.count(f"backprop resume {run.run_id}") == 1
