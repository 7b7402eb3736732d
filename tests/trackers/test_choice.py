"""Which trackers are told of a run: those that were named, or are installed and configured."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_library import put_library

from backpropagate import Trainer
from backpropagate.training.config.settings import load_settings
from backpropagate.training.config.tracker_names import TRACKERS
from backpropagate.training.errors import InputError, MissingExtraError
from backpropagate.training.requests.train import train_spec
from backpropagate.training.service import TrainingService
from backpropagate.training.trackers.choice import chosen

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Let only these trackers be installed, and nothing be configured."""
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_DISABLED", "WANDB_BASE_URL", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))

    def only(*names: str) -> None:
        for name in TRACKERS:
            if name in names:
                monkeypatch.delitem(sys.modules, name, raising=False)
                put_library(name, "", tmp_path / f"library-of-{name}", monkeypatch)
            else:
                monkeypatch.setitem(sys.modules, name, None)

    return only


def test_auto_takes_what_is_installed_and_configured_and_says_why_it_leaves_others_out(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("wandb", "tensorboard", "mlflow")
    used, left_out = chosen("auto")
    assert used == ["tensorboard"]
    assert left_out["trackio"] == "not installed" and left_out["mlflow"] == "no MLFLOW_TRACKING_URI"
    assert "WANDB_API_KEY" in left_out["wandb"]
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    assert chosen("auto").used == ["wandb", "tensorboard", "mlflow"]
    assert chosen("none") == ([], {})


def test_wandb_is_configured_by_a_login_too_and_offline_without_one(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("wandb")
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password 1234\n")
    (tmp_path / "netrc").chmod(0o600)
    assert chosen("auto").used == ["wandb"]
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    assert chosen("auto").used == []
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert chosen("auto").used == ["wandb"]
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert chosen(["wandb"]) == ([], {"wandb": "switched off by WANDB_MODE or WANDB_DISABLED"})


def test_a_folder_that_wandb_left_behind_is_no_library(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install()
    (tmp_path / "work" / "trackio" / "data").mkdir(parents=True)
    monkeypatch.delitem(sys.modules, "trackio")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "work")])
    assert chosen("auto").left_out["trackio"] == "not installed"


@pytest.mark.anyio
async def test_a_named_tracker_that_is_missing_is_refused_at_once(
    install: Install, service: TrainingService, dataset: Path, tiny_model: Path
) -> None:
    install()
    for name, hint in (("wandb", "backpropagate-mcp[monitoring]"), ("mlflow", "pip install mlflow")):
        with pytest.raises(MissingExtraError, match=f"{name}, which is not installed") as refused:
            await service.train(dataset, tiny_model, report_to=[name])
        assert hint in (refused.value.hint or "")
        with pytest.raises(MissingExtraError):
            Trainer(str(tiny_model), report_to=name).train(dataset, steps=1)
    assert service.store.ids() == []


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("auto", "auto"),
        (["none"], "none"),
        ([], "none"),
        ("wandb", ["wandb"]),
        ("wandb, MLflow", ["wandb", "mlflow"]),
        (("trackio", "trackio"), ["trackio"]),
    ],
)
def test_one_name_a_list_and_names_with_commas_are_accepted(given: object, meant: object) -> None:
    spec = train_spec(arguments={"dataset": "a.jsonl", "report_to": given})
    assert spec.training.report_to == meant


@pytest.mark.parametrize("given", ["wandbb", ["wandb", "auto"], 3, [["wandb"]]])
def test_another_value_is_refused_with_the_known_ones(given: object) -> None:
    with pytest.raises(InputError, match="report_to") as refused:
        train_spec(arguments={"dataset": "a.jsonl", "report_to": given})
    assert "wandb" in str(refused.value)


def test_the_environment_can_set_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKPROPAGATE_TRAINING__REPORT_TO", "wandb,tensorboard")
    assert load_settings().training.report_to == ["wandb", "tensorboard"]


def test_the_result_says_why_nobody_was_told(
    install: Install, home: Path, dataset: Path, tiny_model: Path
) -> None:
    install()
    run = Trainer(str(tiny_model), lora_r=4, threads=1, held_out=0).train(dataset, steps=1)
    assert run.result.trackers == [] and not run.warnings
    assert run.result.no_trackers == dict.fromkeys(TRACKERS, "not installed")
