"""Where the time before the first step went."""

from __future__ import annotations

import pytest

from backpropagate.training.config.results import TrainResult
from backpropagate.training.events import Phase, Step
from backpropagate.training.runs import start_up
from backpropagate.training.runs.start_up import StartUp


@pytest.fixture
def seconds(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the clock says next."""
    said: list[float] = [0.0]
    monkeypatch.setattr(start_up.time, "monotonic", lambda: said.pop(0))
    return said


def test_the_time_of_each_phase_is_its_own_until_the_first_step_has_ended(seconds: list[float]) -> None:
    seen = StartUp()
    seconds += [1.0, 5.0, 5.5, 7.0, 8.25]
    seen.see(Phase(phase="loading", message="importing torch and transformers"))
    seen.see(Phase(phase="preparing", message="tokenising", fraction=0.0))
    seen.see(Phase(phase="preparing", message="tokenising, halfway", fraction=0.5))
    seen.see(Phase(phase="loading", message="loading a-model"))
    seen.see(Phase(phase="training", message="training"))
    for number in (1, 2):
        seen.see(Step(step=number, total_steps=2, loss=1.0))
    assert seen.seconds == {
        "starting": 1.0,
        "importing torch and transformers": 4.0,
        "tokenising": 0.5,
        "loading a-model": 1.5,
        "the first step": 1.25,
    }


def test_a_sentence_names_what_took_longest() -> None:
    parts = {"importing": 4.0, "tokenising": 0.5, "loading": 1.5, "a": 0.1, "b": 0.2, "the first step": 0.3}
    assert TrainResult(before_first_step=parts).start_sentence == (
        "first step after 6.6 s "
        "(importing 4.0 s, loading 1.5 s, tokenising 0.5 s, the first step 0.3 s, b 0.2 s)"
    )
    assert TrainResult().start_sentence is None


def test_secrets_in_a_message_are_not_kept(seconds: list[float]) -> None:
    seen = StartUp()
    seconds += [1.0, 2.0]
    seen.see(Phase(phase="loading", message="loading hf_abcdefghijklmnopqrstuvwxyz012345"))
    seen.see(Step(step=1, total_steps=1, loss=1.0))
    assert "hf_abc" not in str(seen.seconds)
