"""Presets: named values that stand in the spec, below what is given beside them; models in both spellings."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest

from backpropagate.cli import main
from backpropagate.training.config.fields import LoraPreset, TrainingPreset
from backpropagate.training.config.named_settings import LORA_PRESETS, MULTI_RUN_PRESETS, TRAINING_PRESETS
from backpropagate.training.errors import InputError
from backpropagate.training.models.presets import classify_model
from backpropagate.training.requests.multi_run import multi_run_spec
from backpropagate.training.requests.train import train_spec


def values(**arguments: Any) -> tuple[Any, ...]:
    spec = train_spec(arguments={"dataset": "/x", **arguments})
    training = spec.training
    return (
        *(spec.lora.r, spec.lora.alpha, training.batch_size, training.gradient_accumulation_steps),
        *(training.learning_rate, training.warmup_steps),
    )


def test_a_preset_is_in_the_spec_with_its_values() -> None:
    assert values(preset="fast") == (8, 16, 2, 4, 5e-4, 5)
    assert values(preset="fast-3b") == (8, 16, 4, 2, 5e-4, 5)
    assert values(preset="balanced") == (16, 32, 2, 8, 2e-4, 10)
    assert values(preset="quality") == (32, 64, 4, 8, 1e-4, 20)
    spec = train_spec(arguments={"dataset": "/x", "preset": "quality", "lora_preset": "fast"})
    assert (spec.training.preset, spec.lora.preset) == ("quality", "fast")
    assert (spec.lora.r, spec.lora.target_modules) == (16, ["q_proj", "v_proj"])


def test_what_is_given_wins_over_a_preset_in_every_form(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert values(preset="fast", lora_r=4)[:2] == (4, 16)
    spec = train_spec(
        settings={"preset": "fast", "lora": {"alpha": 9}}, arguments={"dataset": "/x", "lr": 1e-5}
    )
    assert (spec.lora.r, spec.lora.alpha, spec.training.learning_rate) == (8, 9, 1e-5)
    monkeypatch.setenv("BACKPROPAGATE_LORA__R", "5")
    assert values(preset="fast")[:2] == (8, 16)  # asked for now, against a default of this machine
    monkeypatch.setenv("BACKPROPAGATE_TRAINING__PRESET", "quality")
    assert values()[:3] == (5, 64, 4) and values(batch_size=1)[2] == 1
    assert values(preset="fast")[:3] == (8, 16, 2)


def test_a_multi_run_takes_the_number_and_length_of_its_runs_from_the_preset() -> None:
    def multi(**arguments: Any) -> Any:
        given = {"dataset": "/x", "preset": "quality", **arguments}
        return multi_run_spec(arguments=given, multi={"num_runs": given.pop("num_runs", None)}).multi

    spec = multi()
    assert (spec.num_runs, spec.steps_per_run, spec.replay) == (10, 200, 0.1)
    assert multi(num_runs=2).num_runs == 2 and multi(steps=7).steps_per_run is None
    tasks = [{"name": "a", "dataset": "/a"}, {"name": "b", "dataset": "/b"}]
    named = multi_run_spec(arguments={"preset": "fast"}, multi={}, tasks=tasks)
    assert named.multi.num_runs is None and named.multi.steps_per_run == 50


@pytest.mark.parametrize("name", ["preset", "lora_preset"])
def test_an_unknown_preset_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(InputError, match=f"{name}: should be 'fast'.* or 'quality', not 'quick'"):
        train_spec(arguments={"dataset": "/x", name: "quick"})


def test_the_tables_are_those_of_the_settings_and_the_help_names_them(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert [*TRAINING_PRESETS] == [*MULTI_RUN_PRESETS] == [*get_args(get_args(TrainingPreset)[0])]
    assert [*LORA_PRESETS] == [*get_args(get_args(LoraPreset)[0])]
    assert main.run(["train", "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "--preset fast|fast-3b|balanced|quality" in shown
    assert "--lora-preset fast|balanced|quality" in shown


@pytest.mark.parametrize(
    ("name", "hub_id"),
    [
        ("llama-3.2-3b", "meta-llama/Llama-3.2-3B-Instruct"),
        ("llama3.2-3b", "meta-llama/Llama-3.2-3B-Instruct"),
        ("Llama-3.2-1B", "meta-llama/Llama-3.2-1B-Instruct"),
        ("qwen-2.5-7b", "Qwen/Qwen2.5-7B-Instruct"),
        ("mistral-7b", "mistralai/Mistral-7B-Instruct-v0.3"),
        ("llama-3.1-8b", "meta-llama/Llama-3.1-8B-Instruct"),
        ("phi-4-mini-3.8b", "microsoft/Phi-4-mini-instruct"),
    ],
)
def test_a_model_may_be_named_in_both_spellings(name: str, hub_id: str) -> None:
    assert classify_model(name).location == hub_id
