"""What users of transformers, PEFT, TRL and axolotl type first is accepted in every door, and named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mcp import Client
from mcp.types import TextContent

from backpropagate import Trainer
from backpropagate.cli import main
from backpropagate.server.app import build_server
from backpropagate.training.config.arguments import ALIASES, flat_fields
from backpropagate.training.config.specs import TrainSpec
from backpropagate.training.errors import InputError
from backpropagate.training.requests.settings import alias_notes
from backpropagate.training.requests.train import train_spec
from backpropagate.training.service import TrainingService

GIVEN: dict[str, tuple[Any, str, Any]] = {
    "max_steps": (7, "steps", 7),
    "num_train_epochs": (2, "epochs", 2.0),
    "per_device_train_batch_size": (3, "batch_size", 3),
    "gradient_checkpointing": (True, "recompute", "everything"),
    "lr_scheduler_type": ("constant_with_warmup", "lr_scheduler", "constant"),
    "lora_rank": (4, "lora_r", 4),
    "r": (4, "lora_r", 4),
    "lr": (1e-3, "learning_rate", 1e-3),
    "target_modules": (["q_proj"], "lora_target_modules", ["q_proj"]),
    "use_rslora": (True, "lora_rslora", True),
    "max_length": (64, "max_seq_length", 64),
    "save_steps": (11, "checkpoint_every_steps", 11),
    "eval_steps": (13, "eval_every", 13),
    "early_stopping_patience": (5, "patience", 5),
    "val_set_size": (0.25, "held_out", 0.25),
    "sequence_len": (64, "max_seq_length", 64),
    "num_epochs": (2, "epochs", 2.0),
    "micro_batch_size": (3, "batch_size", 3),
    "use_unsloth": (True, "engine", "unsloth"),
    "train_on_responses": (False, "train_on", "all"),
    "gradient_accumulation": (2, "gradient_accumulation_steps", 2),
}
"""Alias → a value, the setting that is meant, and its value."""


def value_of(spec: Any, name: str) -> Any:
    group, field, _ = flat_fields()[name]
    return getattr(getattr(spec, group), field)


def test_every_alias_is_tried_here() -> None:
    assert GIVEN.keys() == ALIASES.keys()
    assert all(alias.name in flat_fields() for alias in ALIASES.values())


@pytest.mark.parametrize("alias", GIVEN)
def test_an_alias_means_the_setting_as_an_argument_in_settings_and_in_a_group(alias: str) -> None:
    value, name, meant = GIVEN[alias]
    group = flat_fields()[name][0]
    for arguments, settings in (({alias: value}, {}), ({}, {alias: value}), ({}, {group: {alias: value}})):
        spec = train_spec(arguments={"dataset": "/x.jsonl", **arguments}, settings=settings)
        assert value_of(spec, name) == meant
        assert alias_notes(arguments, settings) == [f"{alias} is called {name} here."]


def test_values_that_mean_not_given_leave_the_default() -> None:
    spec = train_spec(arguments={"dataset": "/x.jsonl", "max_steps": -1, "use_unsloth": False})
    assert spec.training.steps is None and spec.training.engine == "auto"


def test_a_setting_under_two_names_is_refused() -> None:
    with pytest.raises(InputError, match="steps is given twice: max_steps is the same setting"):
        train_spec(arguments={"dataset": "/x.jsonl", "max_steps": 3, "steps": 4})


@pytest.mark.anyio
async def test_the_tool_takes_aliases_and_says_their_name(
    service: TrainingService, dataset: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service.dispatch, "start", lambda run: None)  # the spec says what would be trained
    given = {"dataset": str(dataset), "model": str(tiny_model), "max_steps": 1, "lora_rank": 2, "wait_s": 0}
    async with Client(build_server(service, [tmp_path, tiny_model.parent])) as client:
        started = await client.call_tool("train", given)
    assert isinstance(started.content[0], TextContent) and not started.is_error, started
    assert "max_steps is called steps here. lora_rank is called lora_r here." in started.content[0].text
    (run_id,) = service.store.ids()
    spec = service.store.find(run_id).spec()
    assert isinstance(spec, TrainSpec) and (spec.training.steps, spec.lora.r) == (1, 2)


@pytest.mark.slow
def test_the_command_takes_aliases_and_says_their_name(
    dataset: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "--data", str(dataset), "--model", str(tiny_model), "--max-steps", "1"]
    assert main.run([*words, "--no-gradient-checkpointing"]) == 0
    shown = capsys.readouterr().err
    assert (
        "max_steps is called steps here." in shown and "gradient_checkpointing is called recompute" in shown
    )


@pytest.mark.slow
def test_the_trainer_takes_aliases(tiny_model: Path, dataset: Path) -> None:
    settings: Any = {"max_steps": 1, "lora_rank": 2}
    assert Trainer(str(tiny_model), **settings).train(dataset).total_steps == 1
