"""What an argument's name and value mean: null, true, a slip of the pen, another tool's name."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mcp import Client
from mcp.types import TextContent

from backpropagate.server.app import build_server
from backpropagate.tools import TOOLS
from backpropagate.training.config.arguments import flat_fields
from backpropagate.training.errors import InputError
from backpropagate.training.requests.train import train_spec
from backpropagate.training.service import TrainingService

DATASET = {"dataset": "/x.jsonl"}
NUMBERS = [
    name
    for name, (_, _, info) in flat_fields().items()
    if name not in {"model", "dataset"} and "bool" not in str(info.annotation)
]


def hint_of(name: str, **settings: Any) -> str:
    with pytest.raises(InputError) as caught:
        train_spec(arguments={**DATASET, name: 1}, settings=settings)
    return caught.value.hint or ""


@pytest.mark.parametrize("name", NUMBERS)
def test_true_is_no_number_and_no_text_in_any_door(name: str) -> None:
    group, field, _ = flat_fields()[name]
    for arguments, more in (({name: True}, {}), ({}, {name: False}), ({}, {group: {field: True}})):
        with pytest.raises(InputError, match=f"{name}.*not (True|False)"):
            train_spec(arguments={**DATASET, **arguments}, settings=more)


def test_null_means_not_given_for_every_setting_in_every_door() -> None:
    plain = train_spec(arguments=DATASET)
    names = [name for name in flat_fields() if name != "dataset"]
    assert train_spec(arguments={**DATASET, **dict.fromkeys(names)}) == plain
    hidden = {name: None for name in names if name not in {"model"}}
    assert train_spec(arguments=DATASET, settings=hidden) == plain
    groups = {"lora": None, "training": {"epochs": None, "max_steps": None}, "model": {"revision": None}}
    assert train_spec(arguments=DATASET, settings=groups) == plain
    assert train_spec(arguments={**DATASET, "steps": 4}, settings={"steps": None}).training.steps == 4
    assert train_spec(arguments={**DATASET, "max_steps": 4, "steps": None}).training.steps == 4
    with pytest.raises(InputError, match="Unknown argument 'stepz'"):
        train_spec(arguments={**DATASET, "stepz": None})


def test_a_setting_is_given_once_also_under_two_names_in_a_group() -> None:
    with pytest.raises(InputError, match="steps is given twice: as max_steps and as steps"):
        train_spec(arguments=DATASET, settings={"training": {"max_steps": 3, "steps": 4}})


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        *(("rank", "lora_r"), ("dropout", "lora_dropout"), ("alpha", "lora_alpha"), ("stepz", "steps")),
        *(("leraning_rate", "learning_rate"), ("learnig_rate", "learning_rate"), ("epoch", "epochs")),
        *(("scheduler", "lr_scheduler"), ("sequence_length", "max_seq_length"), ("question", "questions")),
        *(("data", "dataset"), ("model_name", "model"), ("per_device_batch_size", "batch_size")),
        ("gpu", "gpus"),
    ],
)
def test_a_suggestion_is_the_setting_that_is_meant(name: str, meant: str) -> None:
    assert hint_of(name) == f"Did you mean {meant}?"


@pytest.mark.parametrize("name", ["lr_x", "lora", "warmup", "eval_batch_size", "cuda", "batch", "prompt"])
def test_nothing_is_suggested_where_another_setting_is_only_similar_or_several_are_meant(name: str) -> None:
    assert hint_of(name).startswith("Known: ")


@given(st.data())
@settings(max_examples=60)
def test_one_wrong_letter_in_a_name_suggests_that_name(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from([name for name in flat_fields() if len(name) >= 8]))
    at = data.draw(st.integers(1, len(name) - 1))
    wrong = name[:at] + "0" + name[at + 1 :]
    assert hint_of(wrong) == f"Did you mean {name}?"


def test_a_groups_setting_is_suggested_under_its_name_in_the_group() -> None:
    with pytest.raises(InputError) as caught:
        train_spec(arguments=DATASET, settings={"lora": {"lora_r": 3}})
    assert caught.value.hint == "Did you mean r?"


async def answer(service: TrainingService, tool: str, **arguments: Any) -> str:
    async with Client(build_server(service, [service.settings.home.parent])) as client:
        called = await client.call_tool(tool, arguments)
    assert isinstance(called.content[0], TextContent)
    return called.content[0].text


@pytest.mark.anyio
async def test_a_tool_suggests_settings_that_its_schema_does_not_show(service: TrainingService) -> None:
    assert "Did you mean warmup_steps?" in await answer(service, "train", warmup_step=3)
    assert "Did you mean lora_dropout?" in await answer(service, "train", dropout=0.1)
    assert "Did you mean" not in await answer(service, "list_runs", learning_rat=1)


@pytest.mark.anyio
@pytest.mark.parametrize("tool", [tool.name for tool in TOOLS])
async def test_null_means_not_given_for_every_argument_of_every_tool(
    service: TrainingService, tool: str
) -> None:
    async with Client(build_server(service)) as client:
        (schema,) = [each.input_schema for each in (await client.list_tools()).tools if each.name == tool]
        nothing = await client.call_tool(tool, {})
        nulls = await client.call_tool(tool, dict.fromkeys(schema["properties"]))
    assert nulls.is_error == nothing.is_error
    assert not nulls.is_error or nulls.content == nothing.content


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("train", {"steps": True}),
        ("train", {"batch_size": True}),
        ("train", {"warmup_steps": True}),
        ("train", {"wait_s": True}),
        ("list_runs", {"limit": True}),
        ("get_run", {"run_id": "a7f3", "wait_s": False}),
        ("inspect_dataset", {"dataset": "/x.jsonl", "preview": True}),
    ],
)
async def test_a_tool_takes_no_bool_for_a_number(
    service: TrainingService, home: Any, tool: str, arguments: dict[str, Any]
) -> None:
    given = {"dataset": str(home.parent / "x.jsonl"), **arguments} if tool == "train" else arguments
    said = await answer(service, tool, **given)
    wrong = next(name for name, value in given.items() if isinstance(value, bool))
    assert "INPUT_VALIDATION_FAILED" in said and f"{wrong}: should be a number" in said
