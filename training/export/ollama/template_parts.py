"""The text that a chat template puts between the messages, found by rendering conversations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ...data.chat_template.sandbox import compiled_template, template_environment, template_errors

SYSTEM, FIRST, ANSWER, SECOND, REPLY, THIRD = "sYq7s", "uQk1u", "aWz4a", "uRj2u", "aXv5a", "uTm3u"
"""Messages of the rendered conversations: texts that no template contains."""

MERGED = "\n\n"
"""Between a system message and the first user's text where the template knows no system message; as
`merge_system` does when it prepares data."""


class TemplateUnknownError(ValueError):
    """The template cannot be expressed as `TemplateParts`."""


@dataclass(frozen=True)
class TemplateParts:
    """What stands between the texts of a conversation, which is all that a chat template is.

        opening USER answer ASSISTANT turn USER prompt                     without a system message
        before_system SYSTEM after_system USER prompt                      with one

    Args:
        answer: between a user's text and the answer to it.
        prompt: after the last user's text, where the model's answer starts.
        exact: whether a longer conversation with a system message comes out the same as well.
    """

    opening: str
    before_system: str
    after_system: str
    answer: str
    turn: str
    prompt: str
    exact: bool = True

    @property
    def default_system(self) -> str:
        """The template's default system message; empty if there is none."""
        before, after, opening = self.before_system, self.after_system, self.opening
        if not (opening.startswith(before) and opening.endswith(after)):
            return ""
        return opening[len(before) : max(len(before), len(opening) - len(after))]

    def text(self, messages: Sequence[tuple[str, str]]) -> str:
        """The prompt for a conversation of (role, content), as the parts make it."""
        before, end, parts = self.opening, "", list[str]()
        for role, content in messages:
            if role == "system":
                parts += [self.before_system, content]
                before, end = self.after_system, ""
            elif role == "user":
                parts += [before, content]
                before, end = self.answer, self.prompt
            else:
                parts += [before, content]
                before, end = self.turn, ""
        return "".join([*parts, end])


def template_parts(
    template: str, *, bos_token: str = "", eos_token: str = "", adds_bos: bool = True
) -> TemplateParts:
    """The parts of a Jinja chat template.

    Args:
        adds_bos: the server adds `bos_token` to every prompt, so it is omitted here.

    Raises:
        TemplateUnknownError: the template fails, or is more than its parts.
    """
    render = _Renderer(template, bos_token, eos_token, adds_bos)
    exchange = [("user", FIRST), ("assistant", ANSWER), ("user", SECOND)]
    opening, prompt = _between(render([("user", FIRST)]), [FIRST])
    _, answer, turn, _ = _between(render(exchange), [FIRST, ANSWER, SECOND])
    before_system, after_system = _around_system(render, opening, prompt)
    parts = TemplateParts(opening, before_system, after_system, answer, turn, prompt)
    longer = [*exchange, ("assistant", REPLY), ("user", THIRD)]
    for conversation in (exchange, longer):
        if parts.text(conversation) != render(conversation):
            raise TemplateUnknownError("it formats earlier turns differently from later ones")
    return _with_exactness(parts, render, longer)


def _around_system(render: _Renderer, opening: str, prompt: str) -> tuple[str, str]:
    try:
        text = render([("system", SYSTEM), ("user", FIRST)])
        before, after, rest = _between(text, [SYSTEM, FIRST])
    except TemplateUnknownError:  # refused, or not shown
        return opening, MERGED
    if rest != prompt:
        raise TemplateUnknownError("it formats a turn differently after a system message")
    return before, after


def _with_exactness(parts: TemplateParts, render: _Renderer, longer: list[tuple[str, str]]) -> TemplateParts:
    conversation = [("system", SYSTEM), *longer]
    try:
        exact = parts.text(conversation) == render(conversation)
    except TemplateUnknownError:  # a template that refuses system messages has no layout of its own for them
        return parts
    return replace(parts, exact=exact)


def _between(text: str, contents: list[str]) -> list[str]:
    """What stands before, between and after the contents.

    Raises:
        TemplateUnknownError: not every content is there once, and in this order.
    """
    parts: list[str] = []
    for content in contents:
        part, found, text = text.partition(content)
        if not found or content in text:
            raise TemplateUnknownError("it does not show every message exactly once, in order")
        parts.append(part)
    return [*parts, text]


class _Renderer:
    """Renders conversations of (role, content) with a generation prompt, in a sandbox."""

    def __init__(self, template: str, bos_token: str, eos_token: str, adds_bos: bool) -> None:
        environment = template_environment()
        # A Go template has no date: without this function, templates fall back to a fixed one.
        del environment.globals["strftime_now"]
        self._tokens = {"bos_token": bos_token, "eos_token": eos_token}
        self._left_out = bos_token if adds_bos else ""
        try:
            self._template: Any = compiled_template(environment, template)
        except template_errors() as error:
            raise TemplateUnknownError(f"it is not a template ({type(error).__name__})") from error

    def __call__(self, messages: Sequence[tuple[str, str]]) -> str:
        shown = [{"role": role, "content": content} for role, content in messages]
        try:
            text: str = self._template.render(messages=shown, add_generation_prompt=True, **self._tokens)
        except template_errors() as error:
            raise TemplateUnknownError(f"it refuses a plain conversation ({type(error).__name__})") from error
        return text.removeprefix(self._left_out)
