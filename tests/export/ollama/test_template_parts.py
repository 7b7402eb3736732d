"""Chat templates told as pieces, and those pieces in Go's template language."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backpropagate.training.data.chat_template.sandbox import template_environment
from backpropagate.training.export.ollama.go_template import go_template
from backpropagate.training.export.ollama.template_parts import (
    TemplateParts,
    TemplateUnknownError,
    template_parts,
)

TEMPLATES = Path(__file__).parents[2] / "data" / "templates"
BOS, EOS = "<s>", "</s>"
FAMILIES = {
    path.stem: path.read_text(encoding="utf-8")
    for path in sorted(TEMPLATES.glob("*.jinja"))
    if path.stem != "deepseek_r1"
}
TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20).map(
    lambda t: f"x{t}x"
)


FEW = settings(max_examples=15)


@cache
def parts_of(template: str) -> TemplateParts:
    return template_parts(template, bos_token=BOS, eos_token=EOS)


def rendered(template: str, conversation: list[tuple[str, str]]) -> str:
    messages = [{"role": role, "content": content} for role, content in conversation]
    tokens = {"bos_token": BOS, "eos_token": EOS}
    text: str = compiled(template).render(messages=messages, add_generation_prompt=True, **tokens)
    return text.removeprefix(BOS)


@cache
def compiled(template: str) -> Any:
    environment = template_environment()
    del environment.globals["strftime_now"]
    return environment.from_string(template)


def test_all_known_families_are_among_the_templates() -> None:
    assert {"chatml", "llama2", "llama3", "mistral1", "mistral3", "gemma", "phi3", "qwen25", "qwen3"} <= set(
        FAMILIES
    )


@pytest.mark.parametrize("family", FAMILIES)
@FEW
@given(texts=st.lists(TEXT, min_size=1, max_size=5).filter(lambda texts: len(texts) % 2 == 1))
def test_a_conversation_of_pieces_is_what_the_template_renders(family: str, texts: list[str]) -> None:
    conversation = [(("user", "assistant")[index % 2], text) for index, text in enumerate(texts)]
    template = FAMILIES[family]
    assert parts_of(template).text(conversation) == rendered(template, conversation)


@pytest.mark.parametrize("family", sorted(FAMILIES.keys() - {"gemma", "mistral1", "mistral3"}))
@FEW
@given(system=TEXT, user=TEXT, answer=TEXT)
def test_a_system_message_stands_where_the_template_puts_it(
    family: str, system: str, user: str, answer: str
) -> None:
    conversation = [("system", system), ("user", user), ("assistant", answer), ("user", "again")]
    pieces = parts_of(FAMILIES[family])
    assert pieces.text(conversation) == rendered(FAMILIES[family], conversation) and pieces.exact


def test_a_template_that_refuses_system_messages_gets_them_before_the_first_text() -> None:
    text = parts_of(FAMILIES["gemma"]).text([("system", "Be brief."), ("user", "Why?")])
    assert text == "<start_of_turn>user\nBe brief.\n\nWhy?<end_of_turn>\n<start_of_turn>model\n"


def test_a_template_that_moves_the_system_message_along_is_known_as_inexact() -> None:
    pieces = parts_of(FAMILIES["mistral3"])
    assert not pieces.exact and pieces.text([("system", "S"), ("user", "U")]) == "[INST] S\n\nU[/INST]"


def test_the_system_message_that_a_template_puts_in_by_itself_is_found() -> None:
    found = {family: default for family in FAMILIES if (default := parts_of(FAMILIES[family]).default_system)}
    assert found == {
        "qwen25": "You are Qwen, a helpful assistant.",
        "smollm2": "You are a helpful AI assistant named SmolLM",
    }


def test_the_token_that_the_server_adds_by_itself_is_left_out_once() -> None:
    template = "{{ bos_token }}{% for m in messages %}{{ bos_token + m.role + m.content }}{% endfor %}"
    assert template_parts(template, bos_token=BOS).opening == "<s>user"
    assert template_parts(template, bos_token=BOS, adds_bos=False).opening == "<s><s>user"


@pytest.mark.parametrize(
    "template",
    [
        *(path.read_text(encoding="utf-8") for path in (TEMPLATES / "refused").glob("*[te]d*.jinja")),
        "{{ messages[-1].content }}",
        "{{ raise_exception('no') }}",
        "{% for message in messages %}",
        "{{ strftime_now('%Y') }}{% for m in messages %}{{ m.content }}{% endfor %}",
        "{{ ''.__class__.__mro__ }}{% for m in messages %}{{ m.role + m.content }}{% endfor %}",
        "{% for m in messages %}{{ loop.index ~ m.role ~ m.content }}{% endfor %}",
    ],
)
def test_a_template_that_is_more_than_its_pieces_is_refused(template: str) -> None:
    with pytest.raises(TemplateUnknownError):
        parts_of(template)


def test_what_a_template_says_cannot_break_out_of_the_go_template() -> None:
    template = "{% for m in messages %}{{ m.role + '\"}}{{ .Evil }}\\n`\\\\\n' + m.content }}{% endfor %}"
    text = go_template(parts_of(template))
    assert "Evil" in text and "Evil" not in re.sub(r'"(?:[^"\\]|\\.)*"', "", text)


@pytest.mark.skipif(shutil.which("go") is None, reason="needs Go")
def test_go_itself_renders_the_same(tmp_path: Path) -> None:
    exchange = [("user", 'Is "x" {{ .Role }}\n\\d?'), ("assistant", "It is `é` 😀"), ("user", "And?")]
    conversations = [
        exchange[:1],
        exchange,
        [("system", "Be brief."), *exchange],
        [("system", ""), *exchange],
    ]
    cases: list[dict[str, Any]] = [
        {
            "Template": go_template(pieces),
            "Messages": [{"Role": role, "Content": content} for role, content in conversation],
            "Want": pieces.text(conversation),
        }
        for pieces in map(parts_of, FAMILIES.values())
        for conversation in conversations
    ]
    done = subprocess.run(
        ["go", "run", str(Path(__file__).parent / "render.go")],
        input=json.dumps(cases),
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.stdout == f"{len(cases)} the same\n", done.stdout + done.stderr
