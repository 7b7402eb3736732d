"""Earlier versions' variables are used or named; only a probable typing error stops a command."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from backpropagate.cli import main
from backpropagate.training.config.environment import RETIRED, earlier_name
from backpropagate.training.config.settings import environment_names, load_settings
from backpropagate.training.errors import InvalidSettingError
from backpropagate.training.logs import configure_logging


@pytest.mark.parametrize("level", ["debug", "Debug", "DEBUG"])
def test_the_log_level_may_be_in_any_case(level: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKPROPAGATE_LOG_LEVEL", level)
    assert load_settings().log_level == "DEBUG"


EARLIER = {
    "LORA__LORA_ALPHA": ("64", "lora", "alpha", 64),
    "LORA__LORA_DROPOUT": ("0.1", "lora", "dropout", 0.1),
    "LORA__USE_RSLORA": ("true", "lora", "rslora", True),
    "LORA__USE_GRADIENT_CHECKPOINTING": ("true", "training", "recompute", "everything"),
    "TRAINING__MAX_STEPS": ("12", "training", "steps", 12),
    "TRAINING__NUM_TRAIN_EPOCHS": ("2", "training", "epochs", 2),
    "TRAINING__PER_DEVICE_TRAIN_BATCH_SIZE": ("4", "training", "batch_size", 4),
    "TRAINING__LR_SCHEDULER_TYPE": ("cosine", "training", "lr_scheduler", "cosine"),
    "TRAINING__SAVE_STEPS": ("50", "training", "checkpoint_every_steps", 50),
    "MODEL__MAX_SEQ_LENGTH": ("512", "data", "max_seq_length", 512),
    "DATA__MAX_SAMPLES": ("100", "data", "samples", 100),
    "DATA__DATASET_NAME": ("owner/name", "data", "source", "owner/name"),
    "DATA__DATASET_SPLIT": ("train_sft", "data", "split", "train_sft"),
    "DATA__SHUFFLE": ("false", "data", "order", "as_given"),
}


@pytest.mark.parametrize("name", EARLIER)
@pytest.mark.parametrize("place", ["environment", ".env"])
def test_an_earlier_name_sets_the_setting_and_is_told(
    name: str, place: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, group, field, value = EARLIER[name]
    if place == ".env":
        home.mkdir()
        (home / ".env").write_text(f"BACKPROPAGATE_{name}={given}\n")
    else:
        monkeypatch.setenv(f"BACKPROPAGATE_{name}", given)
    settings = load_settings()
    assert getattr(getattr(settings, group), field) == value
    alias = earlier_name(name)
    assert alias is not None
    assert settings.notes == (f"BACKPROPAGATE_{name} is called BACKPROPAGATE_{alias.name} here.",)


def test_zero_steps_meant_epochs(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKPROPAGATE_TRAINING__MAX_STEPS", "0")
    assert load_settings().training.steps is None


def test_of_two_names_of_one_setting_ours_is_used(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKPROPAGATE_LORA__ALPHA", "8")
    monkeypatch.setenv("BACKPROPAGATE_LORA__LORA_ALPHA", "9")
    settings = load_settings()
    assert settings.lora.alpha == 8 and "is ignored" in settings.notes[0]


def test_all_retired_names_are_ignored_with_their_reasons(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {f"BACKPROPAGATE_{name}" for text in RETIRED.values() for name in text.split()}
    names -= environment_names().keys()
    for name in names:
        monkeypatch.setenv(name, "s3cret-value")
    notes = load_settings().notes
    assert len(notes) == len(names) and all(" is ignored: " in note for note in notes)
    assert not any("s3cret" in note for note in notes)


def test_an_unknown_name_that_is_like_no_other_is_ignored_and_named(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BACKPROPAGATE_ZEBRA", "1")
    assert main.run(["list-runs"]) == 0
    shown = capsys.readouterr()
    assert shown.err.count("BACKPROPAGATE_ZEBRA") == 1 and "no such setting" in shown.err
    assert shown.out == "No runs.\n"


def test_the_error_of_a_typing_error_in_the_env_file_names_the_file(home: Path) -> None:
    home.mkdir()
    (home / ".env").write_text("BACKPROPAGATE_TRAINING__STEP=7\n")
    with pytest.raises(InvalidSettingError, match=r"'BACKPROPAGATE_TRAINING__STEP' in .*\.env") as caught:
        load_settings()
    assert caught.value.hint == "Did you mean BACKPROPAGATE_TRAINING__STEPS?"


def test_logs_tell_of_names_where_no_command_does(
    home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("BACKPROPAGATE_DEFER_FEATURE_DETECTION", "1")
    monkeypatch.setattr(logging, "basicConfig", lambda **_: None)  # pytest's handlers stay
    with caplog.at_level("WARNING"):
        configure_logging(load_settings())
    assert "DEFER_FEATURE_DETECTION is ignored" in caplog.text
