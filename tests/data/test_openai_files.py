"""Files of OpenAI's fine-tuning train as they are; what cannot be trained on is named, with what to do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backpropagate.training.config.specs import DataGroup
from backpropagate.training.data.prepare import prepare
from backpropagate.training.data.report.inspection import inspect
from backpropagate.training.data.tokens.example import IGNORED
from backpropagate.training.errors import DatasetError, DatasetFormatError, InputError, PathForbiddenError
from backpropagate.training.files.paths import PathPolicy
from backpropagate.training.requests.dataset_source import with_resolved_validation
from backpropagate.training.requests.multi_run import multi_run_spec
from backpropagate.training.requests.train import train_spec

ADD = {"name": "add", "description": "Adds.", "parameters": {"type": "object", "properties": {}}}
CALL = {"name": "add", "arguments": '{"a": 1, "b": 2}'}
ROWS: dict[str, dict[str, Any]] = {
    "weights": {
        "messages": [
            {"role": "user", "content": "1 + 1?"},
            {"role": "assistant", "content": "three", "weight": 0},
            {"role": "user", "content": "Sure?"},
            {"role": "assistant", "content": "two", "weight": 1},
        ]
    },
    "functions": {
        "messages": [
            {"role": "user", "content": "1 + 2?"},
            {"role": "assistant", "function_call": CALL},
            {"role": "function", "name": "add", "content": "3"},
            {"role": "assistant", "content": "three"},
        ],
        "functions": [ADD],
    },
    "tools": {
        "messages": [
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "1 + 2?"}]},
            {"role": "assistant", "tool_calls": [{"id": "call_1", "type": "function", "function": CALL}]},
            {"role": "tool", "tool_call_id": "call_1", "content": "3"},
            {"role": "assistant", "content": "three"},
        ],
        "tools": [{"type": "function", "function": ADD}],
        "parallel_tool_calls": False,
    },
    "legacy completion": {"prompt": "1 + 2 =", "completion": " three"},
}
PAIR: dict[str, Any] = {
    "input": {
        "messages": [{"role": "user", "content": "Capital of France?"}],
        "tools": [{"type": "function", "function": ADD}],
        "parallel_tool_calls": True,
    },
    "preferred_output": [{"role": "assistant", "content": "Paris."}],
    "non_preferred_output": [{"role": "assistant", "content": "Lyon."}],
}


@pytest.fixture
def data(tmp_path: Path) -> Callable[..., DataGroup]:
    def write(*rows: dict[str, Any], **settings: Any) -> DataGroup:
        file = tmp_path / "openai.jsonl"
        file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        return DataGroup(source=str(file), **settings)

    return write


def trained_text(tokenizer: Any, data: DataGroup, cache: Path) -> list[str]:
    rows = prepare(data, tokenizer, cache=cache).train
    return [tokenizer.decode([one for one in example.labels if one != IGNORED]) for example in rows]


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_a_row_of_each_of_their_forms_is_usable(
    row: dict[str, Any], data: Callable[..., DataGroup], tokenizer_of: Any
) -> None:
    found = inspect(data(row), tokenizer_of("qwen25"), preview=1).as_dict()
    assert found["usable"] == 1
    assert not [one for one in found["findings"] if one["severity"] != "note"], found["findings"]
    assert "⟦" in found["preview"]["rows"][0]["untrusted_text"]


def test_an_answer_of_weight_0_is_shown_and_not_trained(
    data: Callable[..., DataGroup], tokenizer_of: Any, tmp_path: Path
) -> None:
    (text,) = trained_text(tokenizer_of("chatml"), data(ROWS["weights"]), tmp_path / "cache")
    assert "two" in text and "three" not in text


def test_a_setting_of_requests_in_a_row_is_named_in_a_note(
    data: Callable[..., DataGroup], tokenizer_of: Any
) -> None:
    (found,) = inspect(data(ROWS["tools"]), tokenizer_of("qwen25"), preview=0).as_dict()["findings"]
    assert (found["kind"], list(found["details"])) == ("metadata", ["parallel_tool_calls"])


def test_preference_rows_are_named_as_openais_with_the_setting_that_trains_the_preferred_answer(
    data: Callable[..., DataGroup], tokenizer_of: Any, tmp_path: Path
) -> None:
    tokenizer = tokenizer_of("qwen25")
    with pytest.raises(DatasetFormatError, match="OpenAI's preference format") as refused:
        prepare(data(PAIR), tokenizer, cache=tmp_path / "cache")
    wanted = {"prompt": "input", "completion": "preferred_output"}
    assert refused.value.hint and f"columns={json.dumps(wanted)}" in refused.value.hint
    (text,) = trained_text(tokenizer, data(PAIR, columns=wanted), tmp_path / "cache")
    assert "Paris." in text and "Lyon" not in text and "Capital" not in text


@pytest.mark.parametrize("broken", [{"preferred_output": []}, {"preferred_output": "Paris."}])
def test_a_preference_row_without_a_chat_still_has_a_reason(
    broken: dict[str, Any], data: Callable[..., DataGroup], tokenizer_of: Any
) -> None:
    found = inspect(data({**PAIR, **broken}), tokenizer_of("chatml"), preview=0).as_dict()
    assert found["usable"] == 0 and found["findings"][0]["severity"] == "error"


def test_a_validation_file_is_what_is_held_out(
    data: Callable[..., DataGroup], tokenizer_of: Any, tmp_path: Path
) -> None:
    rows = [{"prompt": f"item {n}?", "completion": f"{n}"} for n in range(30)]
    other = tmp_path / "validation.jsonl"
    other.write_text("".join(f'{{"prompt": "other {n}?", "completion": "x{n}"}}\n' for n in range(4)))
    given = data(*rows, validation=str(other), samples=10)
    tokenizer = tokenizer_of("chatml")
    prepared = prepare(given, tokenizer, cache=tmp_path / "cache")
    assert (len(prepared.train), len(prepared.held_out)) == (10, 4)
    assert inspect(given, tokenizer, preview=0).as_dict()["held_out"] == 4
    held_out = [tokenizer.decode(example.input_ids) for example in prepared.held_out]
    assert all("other" in text for text in held_out)
    # The same rows, all to train on, are another content of the cache.
    both = data(*rows, samples=10).model_copy(update={"source": [str(given.source), str(other)]})
    assert prepare(both, tokenizer, cache=tmp_path / "cache").key != prepared.key


def test_a_validation_file_that_is_trained_on_or_has_no_usable_row_is_told(
    data: Callable[..., DataGroup], tokenizer_of: Any, tmp_path: Path
) -> None:
    rows = [{"prompt": f"item {n}?", "completion": f"{n}"} for n in range(8)]
    other = tmp_path / "validation.jsonl"
    other.write_text("".join(json.dumps(row) + "\n" for row in [*rows[:3], {"text": "new"}]))
    given, tokenizer = data(*rows, validation=str(other)), tokenizer_of("chatml")
    prepared = prepare(given, tokenizer, cache=tmp_path / "cache")
    (note,) = [note for note in prepared.summary.notes if "validation" in note]
    assert note.startswith("3 of 4 validation rows are also trained on")
    other.write_text('{"prompt": "", "completion": ""}\n')
    with pytest.raises(DatasetError, match="No row of the validation dataset can be used"):
        prepare(given.model_copy(update={"on_bad_rows": "skip"}), tokenizer, cache=tmp_path / "cache")


def test_a_share_and_a_validation_file_at_once_are_refused(
    data: Callable[..., DataGroup], tokenizer_of: Any
) -> None:
    given = data(ROWS["weights"], validation="v.jsonl", held_out=0.1)
    with pytest.raises(InputError, match="both say which rows are held out"):
        prepare(given, tokenizer_of("chatml"))


def test_an_assistant_may_name_only_a_validation_file_that_it_may_read(tmp_path: Path) -> None:
    policy = PathPolicy.for_assistant([tmp_path / "data"], tmp_path / "home", user_home=False)
    arguments = {"dataset": "d.jsonl", "model": "qwen3-0.6b"}
    spec = train_spec(
        arguments=arguments | {"validation": str(tmp_path / "data" / ".." / "data" / "v.jsonl")}
    )
    assert with_resolved_validation(spec, policy).data.validation == str(tmp_path / "data" / "v.jsonl")
    for path in (str(tmp_path / "other.jsonl"), "v.jsonl"):
        with pytest.raises(PathForbiddenError):
            with_resolved_validation(train_spec(arguments=arguments | {"validation": path}), policy)


def test_a_multi_run_takes_no_validation_file() -> None:
    arguments = {"dataset": "d.jsonl", "model": "qwen3-0.6b", "validation": "v.jsonl"}
    with pytest.raises(InputError, match="a setting of a single training"):
        multi_run_spec(arguments=arguments, multi={})
