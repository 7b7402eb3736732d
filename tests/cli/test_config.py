"""`backprop config`: what is set where, and changes of the home's `.env` that never leave a broken one."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from backpropagate.cli import main
from backpropagate.training.config.settings import load_settings

Captured = pytest.CaptureFixture[str]


def shown(capsys: Captured) -> dict[str, dict[str, object]]:
    capsys.readouterr()
    assert main.run(["config", "--show", "--json"]) == 0
    return json.loads(capsys.readouterr().out)["settings"]


def test_it_says_where_each_value_comes_from(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    assert main.run(["config", "--set", "lora.r=8", "--set", "log_level=debug"]) == 0
    monkeypatch.setenv("BACKPROPAGATE_LORA__LORA_ALPHA", "64")
    facts = shown(capsys)
    origin = {name: (fact["value"], fact["from"], fact["name"]) for name, fact in facts.items()}
    assert origin["BACKPROPAGATE_LORA__R"] == (8, ".env", "BACKPROPAGATE_LORA__R")
    assert origin["BACKPROPAGATE_LORA__ALPHA"] == (64, "environment", "BACKPROPAGATE_LORA__LORA_ALPHA")
    assert origin["BACKPROPAGATE_LORA__DROPOUT"] == (0.0, "default", None)
    assert main.run(["config"]) == 0
    text = capsys.readouterr().out
    assert "BACKPROPAGATE_LORA__ALPHA = 64  [environment, as BACKPROPAGATE_LORA__LORA_ALPHA]" in text
    assert "BACKPROPAGATE_LOG_LEVEL = DEBUG  [.env]" in text


@pytest.mark.parametrize("name", ["lora_r", "lora.r", "LORA__R", "BACKPROPAGATE_LORA__R", "lora_rank"])
def test_a_setting_may_be_named_in_each_way(name: str, home: Path) -> None:
    assert main.run(["config", "--set", f"{name}=8"]) == 0
    assert (home / ".env").read_text() == "BACKPROPAGATE_LORA__R='8'\n"
    assert load_settings().lora.r == 8
    assert main.run(["config", "--reset", name]) == 0
    assert (home / ".env").read_text() == ""


def test_other_lines_stay_and_other_names_of_the_setting_go(home: Path) -> None:
    home.mkdir()
    before = "# mine\n\nBACKPROPAGATE_TRAINING__MAX_STEPS=3\nBACKPROPAGATE_LORA__R=4 # small\n# end"
    (home / ".env").write_text(before)
    assert main.run(["config", "--set", "steps=9"]) == 0
    assert load_settings().training.steps == 9
    text = (home / ".env").read_text()
    assert text == "# mine\nBACKPROPAGATE_LORA__R=4 # small\n# end\nBACKPROPAGATE_TRAINING__STEPS='9'\n"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("lora.r=many", "should be a valid integer"),
        ("lora.r=few", "Nothing was changed: give another value"),
        ("gpu.critical_c=60", "should be above pause_c=80"),
        ("lora.rr=8", "Did you mean LORA__R?"),
        ("home=/tmp/x", "cannot be in a .env file"),
        ("python=/tmp/evil", "cannot be in a .env file"),
        ("unsloth.python=/tmp/evil", "cannot be in a .env file"),
        ("evaluation.system=${PATH}", "cannot be written"),
        ("lora.r", "KEY=VALUE"),
    ],
)
def test_a_change_that_is_not_valid_leaves_the_file_as_it_was(
    change: str, words: str, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.setenv("BACKPROPAGATE_GPU__PAUSE_C", "80")
    monkeypatch.setenv("BACKPROPAGATE_LORA__R", "16")  # hides a wrong value of the file
    assert main.run(["config", "--set", "steps=9"]) == 0
    assert main.run(["config", "--set", change]) == 1
    assert words in capsys.readouterr().err
    assert (home / ".env").read_text() == "BACKPROPAGATE_TRAINING__STEPS='9'\n"
    assert [entry.name for entry in home.iterdir()] == [".env"]


@pytest.mark.parametrize("value", ["it's", 'a "b" \\ c', "# no comment", " spaced ", "ünïcode", "$HOME"])
def test_any_text_comes_back_as_it_was(value: str, home: Path) -> None:
    assert main.run(["config", "--set", f"evaluation.system={value}"]) == 0
    assert load_settings().evaluation.system == value


def test_secrets_are_not_shown_and_the_file_is_private(home: Path, capsys: Captured) -> None:
    assert main.run(["config", "--set", "notify.webhook=https://me:s3cr3tpw@example.org/x"]) == 0
    facts = shown(capsys)
    assert facts["BACKPROPAGATE_NOTIFY__WEBHOOK"]["value"] == "[hidden]"
    assert main.run(["config"]) == 0
    assert "s3cr3t" not in capsys.readouterr().out
    if os.name != "nt":
        assert stat.S_IMODE((home / ".env").stat().st_mode) == 0o600


def test_a_broken_file_can_be_repaired(home: Path, capsys: Captured) -> None:
    home.mkdir()
    (home / ".env").write_text(
        "FOO=1\nBACKPROPAGATE_HOME=/x\nBACKPROPAGATE_LORA__RR=8\nBACKPROPAGATE_LORA__R=4\n"
    )
    assert main.run(["list-runs"]) == 1
    assert main.run(["config", "--reset"]) == 0
    assert main.run(["list-runs"]) == 0


def test_the_environment_goes_before_the_file_and_that_is_said(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.setenv("BACKPROPAGATE_LORA__R", "4")
    assert main.run(["config", "--set", "lora.r=8"]) == 0
    assert "goes before the file" in capsys.readouterr().err
    assert main.run(["config", "--reset", "lora.r"]) == 0
    assert main.run(["config", "--reset", "lora.r"]) == 0
    assert "Nothing to remove" in capsys.readouterr().out


def test_a_wrong_setting_says_where_it_comes_from_and_is_repaired_by_a_reset(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    home.mkdir(parents=True, exist_ok=True)
    (home / ".env").write_text("BACKPROPAGATE_LORA__R=zz\n")
    assert main.run(["list-runs"]) == 1
    assert f"Correct or remove it in {home / '.env'}." in capsys.readouterr().err.replace("\n", " ")
    assert main.run(["config", "--reset", "lora.r"]) == 0
    assert main.run(["list-runs"]) == 0
    monkeypatch.setenv("BACKPROPAGATE_LORA__R", "zz")
    capsys.readouterr()
    assert main.run(["list-runs"]) == 1
    assert "Correct or remove it in the environment." in capsys.readouterr().err
