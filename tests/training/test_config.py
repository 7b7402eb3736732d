"""One definition of each setting, strict about names, from everywhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from backpropagate.training.config.arguments import TrainArguments, flat_fields
from backpropagate.training.config.settings import environment_names, load_settings
from backpropagate.training.errors import InputError, InvalidSettingError
from backpropagate.training.requests.train import train_spec


def test_flat_names_are_unique_and_are_those_that_trainer_declares() -> None:
    assert {*flat_fields(), "output"} == {*TrainArguments.__annotations__, "model", "dataset"}


def test_every_setting_has_a_description() -> None:
    import typing

    from backpropagate.training.config import specs as config

    for name, (group, field, _) in flat_fields().items():
        hints = typing.get_type_hints(config.GROUPS[group], include_extras=True)
        assert "description" in repr(hints[field]), name


def test_flat_arguments_win_over_settings_and_settings_over_the_environment(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BACKPROPAGATE_LORA__R", "8")
    monkeypatch.setenv("BACKPROPAGATE_LORA__ALPHA", "9")
    monkeypatch.setenv("BACKPROPAGATE_LORA__DROPOUT", "0.5")
    spec = train_spec(
        settings={"lora": {"alpha": 10, "dropout": 0.25}}, arguments={"dataset": "/x", "lora_dropout": 0.1}
    )
    assert (spec.lora.r, spec.lora.alpha, spec.lora.dropout) == (8, 10, 0.1)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"stepz": 3}, "stepz"),
        ({"steps": 0}, "steps: should be greater than or equal to 1, not 0"),
        ({"batch_size": "many"}, "batch_size"),
        ({"learning_rate": "fast"}, "learning_rate"),
        ({"engine": "magic"}, "engine"),
        ({"model": "hf_" + "x" * 30}, "secret"),
    ],
)
def test_what_is_wrong_is_named(arguments: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        train_spec(arguments={"dataset": "/x", **arguments})


def test_unknown_groups_and_fields_name_the_nearest() -> None:
    with pytest.raises(InputError) as caught:
        train_spec(settings={"trainin": {}}, arguments={"dataset": "/x"})
    assert caught.value.hint == "Did you mean training?"


def test_older_names_are_accepted() -> None:
    spec = train_spec(arguments={"dataset": "/x", "gradient_accumulation": 4, "train_on_responses": False})
    assert (spec.training.gradient_accumulation_steps, spec.data.train_on) == (4, "all")


def test_the_homes_env_file_is_read(home: Path) -> None:
    home.mkdir()
    (home / ".env").write_text("BACKPROPAGATE_TRAINING__STEPS=7\n")
    assert load_settings().training.steps == 7


@pytest.mark.parametrize("name", ["HOME", "PYTHON", "RUNTIME_DIR", "ROOTS", "UNSLOTH__PYTHON"])
def test_the_env_file_may_not_redirect_what_is_run_or_written(home: Path, name: str) -> None:
    home.mkdir()
    (home / ".env").write_text(f"BACKPROPAGATE_{name}=/tmp/x\n")
    with pytest.raises(InvalidSettingError, match=name):
        load_settings()


def test_an_unknown_variable_names_the_nearest(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKPROPAGATE_LORA__RR", "8")
    with pytest.raises(InvalidSettingError) as caught:
        load_settings()
    assert caught.value.hint == "Did you mean BACKPROPAGATE_LORA__R?"
    assert "BACKPROPAGATE_LORA__R" in environment_names()


def test_a_critical_temperature_below_the_one_for_a_pause_is_refused(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BACKPROPAGATE_GPU__PAUSE_C", "90")
    monkeypatch.setenv("BACKPROPAGATE_GPU__CRITICAL_C", "85")
    with pytest.raises(InvalidSettingError, match="GPU__CRITICAL_C: should be above pause_c=90, not '85'"):
        load_settings()
