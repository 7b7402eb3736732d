"""Learning rate and epochs where none are given."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from backpropagate.training.engine.plan import Plan
from backpropagate.training.engine.planner import Machine, choose_plan
from backpropagate.training.planning.hyperparameters import choose_epochs, choose_learning_rate, hidden_size
from backpropagate.training.requests.train import train_spec

from .conftest import tiny_model


def planned(folder: Path, examples: int = 52, **arguments: Any) -> tuple[Plan, dict[str, str]]:
    spec = train_spec(arguments={"dataset": "/rows.jsonl", "model": str(folder), **arguments})
    return choose_plan(
        spec, Machine("cpu", 0, 1), examples=examples, held_out=8, model=folder, adapter=folder / "a",
        base_model_name="m", continue_from=None,
    )  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tiny_model("llama").save_pretrained(folder)
    return folder


def test_a_small_dataset_gets_a_high_rate_and_more_passes_with_reasons(model: Path) -> None:
    plan, reasons = planned(model)
    assert (plan.learning_rate, plan.epochs) == (1e-3, 5.0)
    assert reasons["epochs"] == "few rows: 5 passes are 65 steps"
    assert reasons["learning_rate"] == "for hidden size 48 and a short run of 65 steps"
    assert reasons["held_out"].startswith("8 examples: 5% of the rows")
    assert {"learning_rate": 1e-3, "epochs": 5.0}.items() <= json.loads(json.dumps(plan.record())).items()


def test_values_that_were_asked_for_are_untouched(model: Path) -> None:
    plan, reasons = planned(model, learning_rate=3e-5, epochs=1)
    assert (plan.learning_rate, plan.epochs) == (3e-5, 1)
    assert reasons["learning_rate"] == reasons["epochs"] == "as asked"
    plan, reasons = planned(model, steps=7)
    assert plan.training.steps == 7 and reasons["epochs"] == "not used: steps are given"
    plan, _ = planned(model, learning_rate=3e-5)
    assert (plan.learning_rate, plan.epochs) == (3e-5, 5.0)


def test_a_multiplier_scales_the_rate_that_is_asked_for_or_chosen(model: Path) -> None:
    plan, reasons = planned(model, learning_rate_multiplier=0.5)
    assert plan.learning_rate == 5e-4 and plan.training.learning_rate_multiplier == 1
    assert reasons["learning_rate"].startswith("0.5 times 0.001, for hidden size 48")
    assert planned(model, learning_rate=3e-5, learning_rate_multiplier=2)[0].learning_rate == 6e-5


def test_few_rows_get_more_passes_but_at_most_twenty_and_many_rows_three() -> None:
    assert [choose_epochs(steps)[0] for steps in (1, 2, 3, 13, 20, 21, 10_000)] == [20, 20, 20, 5, 3, 3, 3]


def test_the_rate_falls_with_the_width_and_for_long_runs_and_is_the_usual_one_for_a_7b() -> None:
    assert choose_learning_rate(4096, 5000)[0] == 2e-4
    assert 1e-4 <= choose_learning_rate(8192, 5000)[0] < 2e-4
    for steps in (50, 5000):
        rates = [choose_learning_rate(width, steps)[0] for width in (64, 576, 1024, 2048, 3584, 4096, 8192)]
        assert all(wider <= narrower for narrower, wider in pairwise(rates)) and max(rates) <= 1e-3
    assert choose_learning_rate(2048, 50)[0] > choose_learning_rate(2048, 5000)[0]


@pytest.mark.parametrize(
    ("config", "width"),
    [
        ({"hidden_size": 576}, 576),
        ({"n_embd": 768}, 768),
        ({"text_config": {"hidden_size": 2560}}, 2560),
        ({}, 4096),
    ],
)
def test_the_width_is_read_as_each_family_names_it(config: dict[str, Any], width: int) -> None:
    assert hidden_size(config) == width
