"""No value of a row disappears without a word: the model sees it, or a finding names it."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backpropagate.training.config.specs import DataGroup
from backpropagate.training.data.check import check
from backpropagate.training.data.cleaning.exact_duplicates import row_hash
from backpropagate.training.data.formats.messages import Conversation
from backpropagate.training.data.formats.recognise import recognise
from backpropagate.training.data.formats.validity import require_trainable, turn_findings, unread_findings
from backpropagate.training.data.readers.rows import RowError
from backpropagate.training.data.report.inspection import inspect
from backpropagate.training.data.tokens.encode import Encoder

KINDS_OF_PARTS = {
    "system": ("system_lost", "system_refused"),
    "content": ("text_lost", "answer_lost"),
    "result": ("tool_result_lost",),
    "reasoning": ("reasoning_lost", "answer_lost"),
    "call": ("tool_call_lost", "answer_lost"),
    "tools": ("tools_lost",),
    "name": ("name_lost",),
    "context": (),
    "history": (),
}
"""Part of a row → the findings that may name it instead of the model seeing it."""

Values = dict[str, tuple[str, ...]]

CHAT = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
ENCODERS: dict[str, Encoder] = {}
"""One per family: the template is probed once."""


class Words:
    """Makes values that occur nowhere else, and remembers the part of the row that each belongs to."""

    def __init__(self) -> None:
        self.values: Values = {}
        self._numbers = count(1)

    def __call__(self, part: str) -> str:
        word = f"w{next(self._numbers)}z"
        self.values[word] = KINDS_OF_PARTS[part]
        return word


@st.composite
def chats(draw: st.DrawFn) -> tuple[dict[str, Any], Values]:
    """A row of messages with features at random, and what its values are."""
    word = Words()
    tool = draw(st.booleans())
    messages: list[dict[str, Any]] = []
    if draw(st.booleans()):
        messages.append({"role": "system", "content": word("system")})
    for _ in range(draw(st.integers(1, 2))):
        messages.append({"role": "user", "content": word("content")})
        if tool:
            messages += _called(draw, word)
        messages.append({"role": "assistant", "content": _answer(draw, word)})
        if draw(st.booleans()):
            messages[-1]["reasoning_content"] = word("reasoning")
    row: dict[str, Any] = {"messages": messages}
    if tool and draw(st.booleans()):
        kind = {"type": "string", "description": word("tools"), "enum": [word("tools")]}
        schema = {"type": "object", "properties": {word("tools"): kind}}
        function = {"name": word("tools"), "description": word("tools"), "parameters": schema}
        row["tools"] = [{"type": "function", "function": function}]
    return row, word.values


def _called(draw: st.DrawFn, word: Words) -> list[dict[str, Any]]:
    called = {"name": word("call"), "arguments": json.dumps({"sku": word("call")})}
    turn: dict[str, Any] = {"role": "assistant", "content": word("content") if draw(st.booleans()) else None}
    if draw(st.booleans()):
        turn["function_call"] = called
    else:
        turn["tool_calls"] = [{"id": "call00001", "type": "function", "function": called}]
    return [turn, {"role": "tool", "tool_call_id": "call00001", "content": word("result")}]


def _answer(draw: st.DrawFn, word: Words) -> str:
    if draw(st.integers(0, 3)):
        return word("content")
    return f"<think>\n{word('reasoning')}\n</think>\n\n{word('content')}"


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(made=chats())
def test_each_value_of_a_chat_is_in_the_rendered_text_or_named_by_a_finding(
    family: str, made: tuple[dict[str, Any], Values], tokenizer_of: Callable[[str], Any]
) -> None:
    row, values = made
    if family not in ENCODERS:
        ENCODERS[family] = Encoder(tokenizer_of(family), DataGroup())
    encoder = ENCODERS[family]
    try:
        rendered = encoder.render(recognise(row))
    except RowError as refused:
        assert refused.kind in {"template_refused", "system_refused", "mask_inexact"}
        return
    lost = {word: kinds for word, kinds in values.items() if word not in rendered.text}
    unnamed = {word: kinds for word, kinds in lost.items() if not {*kinds} & {*rendered.kinds}}
    assert not unnamed, rendered
    if not lost:
        assert not rendered.kinds, "a finding for a row that is shown in full"


@pytest.mark.parametrize(
    "row",
    [
        {"instruction": "When?", "context": "Pier 3, 9:40.", "response": "At 9:40."},
        {"context": "Pier 3, 9:40.", "question": "Which pier?", "answer": "Pier 3."},
        {"instruction": "Double it.", "input": 3, "output": "6"},
        {"instruction": "Which is first?", "input": ["a 3", "b"], "output": "a"},
        {"instruction": "And now?", "output": "4.", "history": [["Number?", "3."]]},
        {"system": "Count to 3.", "prompt": [{"role": "user", "content": "Go"}], "completion": "1 2"},
        {"system_prompt": "Count to 3.", "prompt": "Go", "completion": "1 2"},
        {"prompt": "Go", "completion": "1 2", "functions": [{"name": "to_3", "parameters": {}}]},
    ],
)
def test_what_belongs_to_the_text_is_used(row: dict[str, Any]) -> None:
    recognised = recognise(row)
    assert isinstance(recognised, Conversation) and recognised.unread == ()
    assert "3" in repr((recognised.messages[:-1], recognised.tools))


@pytest.mark.parametrize(
    ("row", "found"),
    [
        ({"question": "a", "answer": "b", "hint": "c"}, [("unread", "hint")]),
        ({"prompt": "a", "completion": "b", "id": 7, "lang": "en"}, [("metadata", "id, lang")]),
        ({"text": "a", "label": "spam", "title": "T"}, [("unread", "label, title")]),
        ({"prompt": "a", "completion": "b", "hint": " ", "more": [], "id": None}, []),
        ({"prompt": "a", "messages": CHAT}, []),
    ],
)  # fmt: skip
def test_a_key_with_content_that_is_not_read_is_named(row: dict[str, Any], found: list[Any]) -> None:
    assert list(unread_findings(recognise(row))) == found


def test_keys_of_turns_and_of_their_parts_are_named_too() -> None:
    part = {"type": "text", "text": "b", "citations": ["c"]}
    turns = [{"role": "user", "content": "a", "mood": "glad"}, {"role": "assistant", "content": [part]}]
    [(kind, keys)] = unread_findings(recognise({"messages": turns}))
    assert (kind, keys) == ("unread", "turns[].mood, turns[].content[].citations")


@pytest.mark.parametrize("key", ["image", "images", "audio"])
def test_a_row_with_an_image_or_sound_is_refused(key: str) -> None:
    with pytest.raises(RowError, match=key):
        recognise({"question": "What is it?", "answer": "A cat.", key: "cat.png"})


@pytest.mark.parametrize(
    ("turn", "trained"),
    [
        ({"weight": 0}, False),
        ({"weight": "0"}, False),
        ({"weight": 0.0}, False),
        ({"train": False}, False),
        ({"training": "false"}, False),
        ({"loss": 0}, False),
        ({"weight": 1}, True),
        ({"train": "True"}, True),
        ({"weight": None}, True),
        ({"weight": 1, "train": False}, False),
    ],
)
def test_a_turn_that_shall_not_be_learnt_carries_no_loss(turn: dict[str, Any], trained: bool) -> None:
    row = recognise(
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", **turn}]}
    )
    assert isinstance(row, Conversation)
    assert row.untrained == (frozenset() if trained else {1}) and row.unread == ()


@pytest.mark.parametrize("index, turn", [(1, {"weight": 0.5}), (0, {"train": True}), (1, {"train": "yes"})])
def test_a_weight_that_is_not_applied_is_named(index: int, turn: dict[str, Any]) -> None:
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    messages[index] |= turn
    assert [kind for kind, _ in unread_findings(recognise({"messages": messages}))] == ["unread"]


@pytest.mark.parametrize("label", [False, True, 0, 1, "0", "1", "True", "false"])
@pytest.mark.parametrize("answer", ["completion", "response"])
def test_kto_labels_are_known_however_they_are_written(label: object, answer: str) -> None:
    row = recognise({"prompt": "Capital of France?", answer: "Lyon.", "label": label})
    with pytest.raises(RowError) as refused:
        require_trainable(row)
    assert refused.value.kind == "kto"


def test_an_older_function_call_is_a_tool_call() -> None:
    turns = [
        {"role": "user", "content": "How many?"},
        {"role": "assistant", "content": "", "function_call": {"name": "stock", "arguments": '{"sku": 7}'}},
        {"role": "function", "name": "stock", "content": "17"},
        {"role": "assistant", "content": "17."},
    ]
    row = recognise({"messages": turns})
    assert isinstance(row, Conversation)
    assert row.messages[1]["tool_calls"][0]["function"] == {"name": "stock", "arguments": {"sku": 7}}
    assert row.messages[2] == {"role": "tool", "name": "stock", "content": "17"}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"messages": CHAT, "tools": [{"name": "x"}]}, {"messages": CHAT, "tools": [{"name": "y"}]}),
        ({"messages": CHAT}, {"messages": [CHAT[0], {**CHAT[1], "reasoning": "c"}]}),
        ({"messages": [*CHAT, *CHAT]}, {"messages": [CHAT[0], {**CHAT[1], "weight": 0}, *CHAT]}),
        ({"prompt": "a", "completion": "if b:\n    c"}, {"prompt": "a", "completion": "if b:\nc"}),
        ({"messages": CHAT}, {"system": "Be brief.", "messages": CHAT}),
    ],
)
def test_rows_that_the_model_sees_as_different_are_no_duplicates(one: Any, other: Any) -> None:
    assert row_hash(recognise(one)) != row_hash(recognise(other))


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (json.dumps({"messages": CHAT}), True),
        (json.dumps(CHAT), True),
        (json.dumps({"prompt": "a", "completion": "b"}), True),
        (json.dumps({"a": 1}), False),
        ("[1] A footnote.", False),
        ("{ not JSON", False),
        ("[" * 100_000, False),
    ],
)
def test_json_of_a_row_in_a_text_is_named(text: str, named: bool) -> None:
    assert ("json_text" in turn_findings(recognise({"text": text}))) == named


def test_a_check_and_an_inspection_name_the_same_keys_with_count_and_lines(
    tmp_path: Path, tokenizer_of: Callable[[str], Any]
) -> None:
    rows = [{"question": f"a{n}", "answer": "b c", "hint": "d", "id": n} for n in range(3)]
    file = tmp_path / "data.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = DataGroup(source=str(file))
    checked = {found.kind: found for found in check(data).findings.sorted()}
    lines = "data.jsonl:1, data.jsonl:2, data.jsonl:3"
    said = f"3 rows have keys with content that is not trained on ({lines}): hint"
    assert checked["unread"].sentence() == said
    found = {one["kind"]: one for one in inspect(data, tokenizer_of("chatml")).as_dict()["findings"]}
    assert found["unread"]["count"] == 3 and found["unread"]["details"] == {"hint": 3}
    assert found["metadata"]["severity"] == "note" and found["metadata"]["details"] == {"id": 3}
