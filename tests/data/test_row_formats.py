"""Every row is recognised by its own keys, and says what is wrong with it when it is not."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backpropagate.training.data.formats import chatml
from backpropagate.training.data.formats.messages import (
    Completion,
    Conversation,
    Preference,
    Text,
    texts_of,
)
from backpropagate.training.data.formats.recognise import FIELDS, recognise
from backpropagate.training.data.formats.validity import require_trainable, turn_findings, turn_pattern
from backpropagate.training.data.readers.rows import RowError

HI = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]


@pytest.mark.parametrize(
    "row, name",
    [
        (
            {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]},
            "sharegpt",
        ),
        ({"messages": HI}, "openai"),
        ({"messages": [{"from": "user", "value": "Hi"}, {"from": "bot", "value": "Hello"}]}, "openai"),
        ({"instruction": "Hi", "output": "Hello"}, "alpaca"),
        ({"instruction": "Hi", "input": "", "output": "Hello"}, "alpaca"),
        ({"question": "Hi", "answer": "Hello"}, "question_answer"),
        ({"query": "Hi", "response": "Hello"}, "question_answer"),
        ({"input": "Hi", "output": "Hello"}, "question_answer"),
        ({"prompt": [HI[0]], "completion": [HI[1]]}, "prompt_completion"),
        ({"text": "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello<|im_end|>\n"}, "chatml"),
    ],
)
def test_all_chat_formats_become_the_same_messages(row: dict[str, Any], name: str) -> None:
    recognised = recognise(row)
    assert isinstance(recognised, Conversation)
    assert (recognised.format, recognised.messages) == (name, HI)


def test_alpaca_puts_its_input_below_its_instruction() -> None:
    row = recognise({"instruction": "Add.", "input": "1 2", "output": "3"})
    assert isinstance(row, Conversation) and row.messages[0]["content"] == "Add.\n\n1 2"


@pytest.mark.parametrize("key", ["completion", "response"])
def test_a_prompt_and_its_completion_stay_what_they_are(key: str) -> None:
    assert recognise({"prompt": "1 +", key: " 1"}) == Completion("prompt_completion", "1 +", " 1")


def test_plain_text_stays_plain_text() -> None:
    assert recognise({"text": "Once upon a time."}) == Text("text", "Once upon a time.")


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Hi", "chosen": "Hello", "rejected": "Go"},
        {"prompt": [HI[0]], "chosen": [HI[1]], "rejected": [{"role": "assistant", "content": "Go"}]},
        {"chosen": HI, "rejected": [HI[0], {"role": "assistant", "content": "Go"}]},
        {"prompt": "Hi", "completion": "Hello", "label": True},
    ],
)
def test_preference_rows_are_recognised_and_refused_until_they_can_be_trained(row: dict[str, Any]) -> None:
    recognised = recognise(row)
    assert isinstance(recognised, Preference)
    with pytest.raises(RowError) as error:
        require_trainable(recognised)
    assert error.value.kind == recognised.format


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Hi", "chosen": "Hello", "rejected": "Hello"},
        {"prompt": "Hi", "chosen": "", "rejected": "Go"},
        {"chosen": [], "rejected": HI},
    ],
)
def test_preference_rows_are_validated(row: dict[str, Any]) -> None:
    with pytest.raises(RowError) as error:
        recognise(row)
    assert error.value.kind == "empty"


@pytest.mark.parametrize(
    "given_role, role",
    [
        ("human", "user"),
        ("GPT", "assistant"),
        ("bot", "assistant"),
        ("developer", "system"),
        ("observation", "tool"),
    ],
)
def test_role_aliases_are_understood(given_role: str, role: str) -> None:
    row = recognise({"conversations": [{"from": given_role, "value": "x"}]})
    assert isinstance(row, Conversation) and row.messages[0]["role"] == role


def test_tools_tool_calls_and_text_parts_are_kept() -> None:
    tool = {"type": "function", "function": {"name": "sum", "parameters": {}}}
    row = recognise(
        {
            "tools": [tool],
            "messages": [
                {
                    "role": "user",
                    "content": [{"type": "text", "text": "1 + "}, {"type": "text", "text": "2?"}],
                },
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [
                        {"id": "c1", "type": "function", "function": {"name": "sum", "arguments": '{"a": 1}'}}
                    ],
                },
                {"role": "tool", "content": "3", "tool_call_id": "c1"},
                {"role": "assistant", "content": "3"},
            ],
        }
    )
    assert isinstance(row, Conversation) and row.tools == [tool]
    assert row.messages[0]["content"] == "1 + 2?"
    assert row.messages[1]["tool_calls"][0]["function"]["arguments"] == {"a": 1}
    assert row.messages[2]["tool_call_id"] == "c1"


def test_a_sharegpt_function_call_is_a_tool_call() -> None:
    row = recognise(
        {
            "conversations": [
                {"from": "human", "value": "1 + 2?"},
                {"from": "function_call", "value": '{"name": "sum", "arguments": {"a": 1}}'},
                {"from": "observation", "value": "3"},
                {"from": "gpt", "value": "3"},
            ],
            "tools": '[{"name": "sum"}]',
        }
    )
    assert isinstance(row, Conversation) and row.tools == [{"name": "sum"}]
    assert row.messages[1]["tool_calls"][0]["function"] == {"name": "sum", "arguments": {"a": 1}}


@pytest.mark.parametrize("system", ["", "Be brief."])
def test_a_system_field_is_a_system_message_even_if_it_is_empty(system: str) -> None:
    for row in (
        {
            "system": system,
            "conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}],
        },
        {"system": system, "instruction": "Hi", "output": "Hello"},
        {"system": system, "prompt": "Hi", "completion": "Hello"},
    ):
        recognised = recognise(row)
        assert isinstance(recognised, Conversation)
        assert recognised.messages == [{"role": "system", "content": system}, *HI]


def test_weight_zero_silences_the_right_message_behind_a_system_field() -> None:
    row = recognise({"system": "S", "messages": [HI[0], {**HI[1], "weight": 0}, *HI]})
    assert isinstance(row, Conversation) and row.untrained == {2}


def test_columns_are_mapped_explicitly_and_the_nearest_name_is_told() -> None:
    columns = {"prompt": "Frage", "completion": "Antwort"}
    assert recognise({"Frage": "Hi", "Antwort": "Hello", "text": "?"}, columns) == Completion(
        "prompt_completion", "Hi", "Hello"
    )
    with pytest.raises(RowError, match="there is 'Antworten'"):
        recognise({"Frage": "Hi", "Antworten": "Hello"}, columns)


@pytest.mark.parametrize(
    "row, kind, reason",
    [
        ({}, "unrecognised", "no known format has the keys (none)"),
        ({"foo": 1, "bar": 2}, "unrecognised", "no known format has the keys 'foo', 'bar'"),
        ({"messages": "Hi"}, "wrong_type", "messages is str, not a list of turns"),
        ({"messages": []}, "empty", "messages is empty"),
        ({"messages": ["Hi"]}, "wrong_type", "turn 1 is str, not an object"),
        ({"messages": [{"content": "Hi"}]}, "unknown_role", "turn 1 has no role"),
        ({"messages": [{"role": "", "content": "Hi"}]}, "unknown_role", "turn 1 has no role"),
        (
            {"messages": [{"role": "narrator", "content": "Hi"}]},
            "unknown_role",
            "turn 1 has the role 'narrator'",
        ),
        (
            {"messages": [{"role": "user", "content": 3}]},
            "wrong_type",
            "the content of turn 1 is int, not text",
        ),
        ({"messages": [{"role": "user"}]}, "wrong_type", "turn 1 (user) has no content"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
            "unsupported_content",
            "turn 1 has a part of type 'image_url'",
        ),
        ({"instruction": "Hi", "output": 3}, "wrong_type", "output is int, not text"),
        ({"messages": HI, "tools": "[{"}, "wrong_type", "tools is not valid JSON"),
        ({"text": ["a"]}, "wrong_type", "text is list, not text"),
        (
            {
                "messages": [
                    {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}
                ]
            },
            "wrong_type",
            "a tool call of turn 1 is not valid JSON",
        ),
        (
            {"text": "<|im_start|>user\nHi<|im_start|>assistant\nHello<|im_end|>"},
            "wrong_type",
            "turn 1 of the ChatML text has no <|im_end|>",
        ),
    ],
)
def test_a_row_that_is_not_understood_says_why(row: dict[str, Any], kind: str, reason: str) -> None:
    with pytest.raises(RowError) as error:
        recognise(row)
    assert (error.value.kind, error.value.reason) == (kind, reason)


def turns(*roles: str, content: str = "x") -> Conversation:
    return Conversation("openai", [{"role": role, "content": content} for role in roles])


@pytest.mark.parametrize(
    "row, kind",
    [
        (turns("system", "user"), "no_assistant"),
        (turns("system"), "no_assistant"),
        (turns("assistant", "user"), "swapped_roles"),
        (turns("user", "assistant", content=" "), "empty"),
        (Text("text", " \n"), "empty"),
        (Completion("prompt_completion", "Hi", ""), "empty"),
    ],
)
def test_a_row_with_nothing_to_learn_is_an_error(row: Any, kind: str) -> None:
    with pytest.raises(RowError) as error:
        require_trainable(row)
    assert error.value.kind == kind


@pytest.mark.parametrize(
    "row, kinds",
    [
        (turns("user", "assistant"), []),
        (turns("system", "user", "assistant"), []),
        (turns("assistant"), ["one_sided"]),
        (turns("user", "assistant", "user"), ["unanswered_end"]),
        (turns("user", "user", "assistant"), ["repeated_role"]),
        (turns("user", "system", "assistant"), ["late_system"]),
        (Conversation("openai", [*HI, {"role": "user", "content": ""}, HI[1]]), ["empty_turn"]),
        (Conversation("openai", [{"role": "system", "content": ""}, *HI]), []),
    ],
)
def test_odd_turns_are_told(row: Conversation, kinds: list[str]) -> None:
    assert list(turn_findings(row)) == kinds


def test_turn_patterns_are_short() -> None:
    assert turn_pattern(turns("system", *("user", "assistant") * 3)) == "system (user assistant)x3"
    assert turn_pattern(turns("user", "assistant")) == "user assistant"
    assert turn_pattern(turns(*["user"] * 20)).endswith("…")


CONTENT = st.text(min_size=1).filter(lambda text: "<|im_" not in text)
ROLES = st.sampled_from(["system", "user", "assistant"])
MESSAGES = st.lists(st.fixed_dictionaries({"role": ROLES, "content": CONTENT}), min_size=1)


@given(MESSAGES)
def test_chatml_is_parsed_back_into_the_turns_that_were_rendered(messages: list[dict[str, Any]]) -> None:
    assert chatml.parse(chatml.render(messages)) == messages


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.one_of(
    st.sampled_from(FIELDS), st.sampled_from(["conversations", "role", "content", "from", "value"])
)
NESTED = st.recursive(
    JSON, lambda inner: st.lists(st.dictionaries(KEYS, inner, max_size=4), max_size=3), max_leaves=5
)


@given(st.dictionaries(KEYS, NESTED, max_size=5))
def test_any_row_is_recognised_or_says_why_not(row: dict[str, Any]) -> None:
    try:
        recognised = recognise(row)
        require_trainable(recognised)
    except RowError as error:
        assert error.reason
    else:
        assert texts_of(recognised) or recognised.format in ("openai", "sharegpt")
        list(turn_findings(recognised))
