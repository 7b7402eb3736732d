"""Conversations built from a skeleton equal what the template renders; others are left to the template."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backpropagate.training.config.specs import DataGroup
from backpropagate.training.data.chat_template.template import ChatTemplate
from backpropagate.training.data.chat_template.template_skeleton import skeleton_of
from backpropagate.training.data.formats.messages import Conversation
from backpropagate.training.data.readers.rows import RowError
from backpropagate.training.data.tokens.encode import Encoder

FRAGMENTS = st.sampled_from(
    ["", " ", "\n", "\t", "Hi", "é", "东京", "🙂", "<think>", "</think>", "<tool_response>",
     "</tool_response>", "<|im_end|>", "</s>", "{{ x }}", "70315926480", '"', "\\", "\u2003", "[/INST]"]
)  # fmt: skip
CONTENTS = st.lists(FRAGMENTS, max_size=5).map("".join)
TURNS = st.lists(st.tuples(st.sampled_from(["system", "user", "assistant", "tool"]), CONTENTS), max_size=6)


def outcome(encoder: Encoder, row: Conversation) -> Any:
    try:
        return encoder.render(row)
    except RowError as error:
        return error.kind


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(turns=TURNS)
def test_a_skeleton_gives_the_text_and_the_turns_that_rendering_gives(
    family: str, tokenizer_of: Any, turns: list[tuple[str, str]]
) -> None:
    tokenizer = tokenizer_of(family)
    turns = [("user", "Hi"), *turns, ("assistant", "Hello")]
    row = Conversation("openai", [{"role": role, "content": content} for role, content in turns])
    slow = Encoder(tokenizer, DataGroup())
    slow.finder._template.skeleton_for = lambda messages, tools=None: None  # type: ignore[method-assign]
    fast = Encoder(tokenizer, DataGroup())
    assert outcome(fast, row) == outcome(slow, row)


def test_the_usual_conversations_of_all_families_have_a_skeleton(family: str, tokenizer_of: Any) -> None:
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": " Hello\n"}] * 3
    fitting = ChatTemplate(tokenizer_of(family)).skeleton_for(messages)
    assert fitting is not None
    assert fitting[0].text(fitting[1]) == tokenizer_of(family).apply_chat_template(messages, tokenize=False)


LOOP = "{% for message in messages %}{% set content = message.content %}BODY{% endfor %}"


@pytest.mark.parametrize(
    "body",
    [
        "{{ content | upper }}",
        "{{ content | tojson }}",
        "{{ content | replace('a', 'b') }}",
        "{{ content | length }}{{ content }}",
        "{{ content }}{{ content }}",
        "{{ content[:9] }}",
        "{{ (content ~ '!') | trim }}",
        "{{ content.split('x')[0] }}",
        "{{ '%s' % (content,) }}",
        "{{ '{}'.format(content) }}",
        "{{ ','.join([content]) }}",
        "{{ [content] | join }}",
        "{{ content if content in 'yes no' else 'other' }}",
        "{{ content if content is in 'yes no' else 'other' }}",
        "{{ content if 'yes'.startswith(content) else 'other' }}",
        "{{ content if content < 'm' else 'other' }}",
        "{{ content if content == messages[0].content else 'other' }}",
        "{{ content if '!' in ('?' + content) else 'other' }}",
        "{% set text %}<{{ content }}>{% endset %}{{ text if '!' in text else 'other' }}",
        "{% macro show(text) %}<{{ text }}>{% endmacro %}{{ show(content) if '!' in show(content) else '' }}",
        "{% for letter in content %}{{ letter }}{% endfor %}",
        "{{ {content: 1}[content] }}{{ content }}",
        "{{ message }}",
    ],
)
def test_a_template_that_needs_the_actual_characters_has_no_skeleton(body: str) -> None:
    assert skeleton_of(LOOP.replace("BODY", body), {}, ["user", "assistant"]) is None


@pytest.mark.parametrize(
    "body, content, shown",
    [
        ("<{{ content | trim }}>", " a ", "<a>"),
        ("<{{ content.lstrip('-') }}>", "-a-", "<a->"),
        ("{{ '<' ~ content ~ loop.index ~ '>' }}", "a", "<a1>"),
        ("{% macro show(text) %}<{{ text }}>{% endmacro %}{{ show(content) }}", "a", "<a>"),
        ("{% set text %}<{{ content }}>{% endset %}{{ text }}", "a", "<a>"),
        ("{% set ns = namespace(text='<' + content) %}{{ ns.text + '>' }}", "a", "<a>"),
        ("{% if '!' in content %}!{% else %}<{{ content }}>{% endif %}", "a", "<a>"),
        ("{% if '!' in content %}!{% else %}<{{ content }}>{% endif %}", "a!", None),
        ("{% if content %}<{{ content }}>{% endif %}", "", None),
        ("{% if content.strip().endswith('!') %}{% else %}<{{ content }}>{% endif %}", "a! ", None),
        ("{% if content == 'a' %}{% else %}<{{ content }}>{% endif %}", "a", None),
    ],
)
def test_a_skeleton_holds_for_contents_that_satisfy_the_recorded_conditions(
    body: str, content: str, shown: str | None
) -> None:
    skeleton = skeleton_of(LOOP.replace("BODY", body), {}, ["user"])
    assert skeleton is not None
    contents = skeleton.contents([{"role": "user", "content": content}])
    assert (None if contents is None else skeleton.text(contents)) == shown
