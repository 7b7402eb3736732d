"""A chat template that would compute without end, or fill the memory, ends as an error."""

# ruff: noqa: E501 - one template a line

from __future__ import annotations

from copy import deepcopy
from types import SimpleNamespace
from typing import Any

import pytest

from backpropagate.training.config.specs import DataGroup
from backpropagate.training.data.chat_template import bounded_sandbox, template_limit
from backpropagate.training.data.chat_template.render import render_chat
from backpropagate.training.data.chat_template.template import ChatTemplate
from backpropagate.training.data.chat_template.template_skeleton import skeleton_of
from backpropagate.training.data.formats.recognise import recognise
from backpropagate.training.data.readers.rows import RowError
from backpropagate.training.data.tokens.encode import encode
from backpropagate.training.errors import ChatTemplateError

GROWN = "{% set ns = namespace(x=START) %}{% for i in range(90) %}{% set ns.x = NEXT %}{% endfor %}{{ ns.x }}"


def grown(start: str, following: str) -> str:
    return GROWN.replace("START", start).replace("NEXT", following)


ENDLESS = [
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "{% for a in range(99999) %}" + "y" * 100_000 + "{% endfor %}",
    "{% for a in range(99999) %}{% set x %}" + "y" * 100_000 + "{% endset %}{% endfor %}",
    "{% macro f(n) %}{% for i in range(50) %}{{ f(n - 1) if n else '' }}{% endfor %}{% endmacro %}{{ f(9) }}",
    "{{ 'x' * 10 ** 10 }}",
    "{{ [1] * 10 ** 10 }}",
    "{{ 10 ** (10 ** 9) }}",
    grown("9", "ns.x * ns.x"),
    grown("'x'", "ns.x ~ ns.x"),
    grown("'x'", "ns.x + ns.x"),
    grown("[1]", "ns.x + ns.x"),
    grown("[1]", "[ns.x, ns.x]"),
    grown("[1]", "(ns.x, ns.x)"),
    grown("1", "{'a': ns.x, 'b': ns.x}"),
    grown("1", "dict(a=ns.x, b=ns.x)"),
    grown("1", "namespace(a=ns.x, b=ns.x)"),
    "{% set ns = namespace(x=[]) %}{% for i in range(999) %}{% set ns.x = ns.x + ['x' * 9999999] %}{% endfor %}",
    "{{ '%1000000000d' % 1 }}",
    "{{ '%*d' % (10 ** 9, 1) }}",
    "{{ '%1000000000d' | format(1) }}",
    "{{ '{:>1000000000}'.format(1) }}",
    "{{ '{:{}}'.format(1, 10 ** 9) }}",
    "{{ ('%(a)s' * 100000) % {'a': 'x' * 100000} }}",
    "{{ 'a'.ljust(10 ** 9) }}",
    "{{ ('a' * 10000).replace('a', 'b' * 100000) }}",
    "{{ ('a' * 10000) | replace('a', 'b' * 100000) }}",
    "{{ ('b' * 100000).join(['a'] * 100000) }}",
    "{{ (['a' * 1000000] * 100000) | map('string') | join }}",
    "{{ ''.join((['a' * 1000000] * 100000) | map('string')) }}",
    "{{ ('a' * 1000).translate({97: 'b' * 1000000}) }}",
    "{{ ('\t' * 100000).expandtabs(100000) }}",
    "{{ (1).to_bytes(10 ** 9) }}",
    "{{ messages | tojson(indent=1000000000) }}",
    "{{ [messages] | map('tojson', indent=1000000000) | list }}",
    "{{ ('a\n' * 1000000) | indent(1000) }}",
    "{{ [1] | batch(10 ** 9, 0) | list }}",
    "{{ 1.5 | round(10 ** 9, 'ceil') }}",
    "{{ ([[1] * 100000] * 10000) | sum(start=[]) }}",
    "{{ lipsum(n=1000000) }}",
    "{% if 1 %}" * 3000 + "{% endif %}" * 3000,
    "{{ " + "(" * 30000 + "1" + ")" * 30000 + " }}",
    "x" * 2_000_000,
]


def tokenizer_with(template: str) -> Any:
    return SimpleNamespace(chat_template=template, special_tokens_map={}, added_tokens_decoder={})


@pytest.mark.parametrize("template", ENDLESS, ids=lambda text: text[:60])
def test_a_template_that_computes_too_much_ends_as_an_error(
    template: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounded_sandbox, "MAX_WORK", 2**22)
    rendered = ChatTemplate(tokenizer_with("{{ messages[0].content }}" + template))
    with pytest.raises((ChatTemplateError, RowError)):
        rendered.render([{"role": "user", "content": "hi"}])
    assert skeleton_of(template, {}, ["user"]) is None


def test_the_error_names_the_limit_and_comes_at_once_for_the_next_row() -> None:
    template = ChatTemplate(tokenizer_with(ENDLESS[0]))
    with pytest.raises(
        ChatTemplateError, match=r"chat template is not usable: it makes more than .* steps"
    ) as first:
        template.render([{"role": "user", "content": "hi"}])
    with pytest.raises(ChatTemplateError) as second:
        template.render([{"role": "user", "content": "another"}])
    assert second.value is first.value


def test_a_long_conversation_is_at_fault_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    template = ChatTemplate(tokenizer_with("{% for m in messages %}{{ m.content | upper }}{% endfor %}"))
    monkeypatch.setattr(bounded_sandbox, "MAX_WORK", 2**22)
    long = [{"role": "user", "content": "x" * 2**17}] * 40
    with pytest.raises(RowError, match="for 40 turns"):
        template.render(long)
    assert template.render(long[:1]).endswith("XX")


def test_training_renders_within_the_limits_too(tokenizer_of: Any) -> None:
    tokenizer = deepcopy(tokenizer_of("chatml"))  # the tests share it
    tokenizer.chat_template = ENDLESS[0] + tokenizer.chat_template
    row = recognise({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]})
    with pytest.raises(ChatTemplateError, match="not usable"):
        encode(row, tokenizer, DataGroup(source="data.jsonl"))


def test_what_templates_use_gives_what_jinja_gives() -> None:
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    template = (
        "{{ [1, 'a', (2,)] }}{{ {'a': [1]} }}{{ 'a' ~ 1 ~ none }}{{ ('%s-%03d' % ('x', 7)) }}{{ '-' * 5 }}"
        "{{ '{} {a:>4}'.format(1, a=2) }}{{ 'a,b'.split(',') | join(';') }}{{ [3, 1] | sort | first }}"
        "{% macro f(n) %}{{ n }}{{ f(n - 1) if n else '.' }}{% endmacro %}{{ f(3) }}{{ 2 ** 10 }}{{ 7 % 4 }}"
        "{% for a, b in {'x': 1}.items() %}{{ a + b | string }}{% endfor %}{{ 'a b' | replace(' ', '_') }}"
        "{% set ns = namespace(n=0) %}{% for i in range(9) %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}"
        "{{ messages | map(attribute='role') | list }}{{ [1, 2] + [3] }}{{ (1, 2) }}{{ ', '.join(['a', 'b']) }}"
    )
    messages = [{"role": "user", "content": "hi"}]
    expected = ImmutableSandboxedEnvironment().from_string(template).render(messages=messages)
    assert render_chat(tokenizer_with(template), messages) == expected


def test_the_limit_is_a_value_error_that_no_template_can_catch() -> None:
    assert issubclass(template_limit.TemplateLimitError, ValueError)


def test_a_template_that_writes_half_a_character_refuses_the_row() -> None:
    half = "\ud83d"
    template = ChatTemplate(tokenizer_with("{% if messages|length > 1 %}" + half + "{% endif %}x"))
    assert template.render([{"role": "user", "content": "hi"}]) == "x"
    with pytest.raises(RowError) as error:
        template.render([{"role": "user", "content": "hi"}, {"role": "assistant", "content": "a"}])
    assert error.value.kind == "template_refused" and "surrogates" in error.value.untrusted
