"""What a chat template makes of all conversations with the same roles, told by rendering one opaque one.

Most templates put constant text before, between and behind the contents, and look at a content only to ask
whether it holds a think block or the like. What they make of such conversations is known once one with their
roles has been looked at; the others are put together without the template, at a small part of its cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple, NoReturn

from ..formats.messages import Message
from .sandbox import template_environment
from .symbolic_text import LookedInsideError, Opaque, Part, Question, Slot, joined, parts_of

FILTERS = frozenset(
    ("count", "d", "default", "first", "last", "length", "list", "rejectattr", "selectattr", "trim")
)
TESTS = frozenset(
    ("!=", "==", "boolean", "defined", "divisibleby", "eq", "equalto", "even", "false", "integer", "iterable",
     "mapping", "ne", "none", "number", "odd", "sequence", "string", "true", "undefined")
)  # fmt: skip
"""Those that see no more of a text than its own methods tell them."""


class Shape(NamedTuple):
    """What a template makes of conversations of the same roles.

    Args:
        pieces: the constant text before, between and behind the contents: one more than there are messages.
        slots: (messages,) how each content is put in.
        questions: a conversation has this shape if each holds for the content that it asks of.
    """

    pieces: list[str]
    slots: list[Slot]
    questions: list[Question]

    def contents(self, messages: Sequence[Message]) -> list[str] | None:
        """The contents as they are shown; None if the conversation has another shape."""
        for question in self.questions:
            if not question.holds_for(messages[question.slot.message]["content"]):
                return None
        return [slot.filled(message["content"]) for slot, message in zip(self.slots, messages, strict=True)]

    def text(self, shown: Sequence[str]) -> str:
        """The rendered conversation."""
        texts = [""] * (2 * len(shown) + 1)
        texts[::2], texts[1::2] = self.pieces, shown
        return "".join(texts)


def shape_of(source: str, variables: dict[str, Any], roles: Sequence[str]) -> Shape | None:
    """The shape of conversations with these roles and without tools.

    Args:
        source: the template.
        variables: what it sees besides the messages.

    Returns:
        None if it cannot be told: the template refuses the roles, does not show each content once and in
        order, or looks inside.
    """
    from .template import failures

    asked: list[Question] = []
    messages = [
        {"role": role, "content": Opaque(f"70315926480{index}", (Slot(index),), asked)}
        for index, role in enumerate(roles)
    ]
    try:
        rendered = _probed(source).render(messages=messages, **variables)
    except (LookedInsideError, *failures()):
        return None
    return _shape(parts_of(rendered), len(roles), asked)


def _shape(parts: Sequence[Part], messages: int, asked: list[Question]) -> Shape | None:
    pieces, slots = [""], list[Slot]()
    for part in parts:
        if isinstance(part, Slot):
            slots.append(part)
            pieces.append("")
        else:
            pieces[-1] += part
    if [slot.message for slot in slots] != list(range(messages)):
        return None
    return Shape(pieces, slots, list(dict.fromkeys(asked)))


@cache
def _probed(source: str) -> Any:
    return _probing_environment().from_string(source)


@cache
def _probing_environment() -> Any:
    """An environment in which nothing reads an opaque text behind its back.

    Written in C, strings' own methods and operators see through subclasses: where an opaque text stands on
    their right side, or in a tuple or a list there, they are refused.
    """
    from jinja2.compiler import CodeGenerator
    from jinja2.nodes import Compare, Concat
    from jinja2.runtime import Macro
    from jinja2.sandbox import ImmutableSandboxedEnvironment
    from jinja2.utils import Namespace

    class Generator(CodeGenerator):
        def visit_Concat(self, node: Concat, frame: Any) -> None:
            self.write("environment.concat((")
            for part in node.nodes:
                self.visit(part, frame)
                self.write(", ")
            self.write("))")

        def visit_Compare(self, node: Compare, frame: Any) -> None:
            guarded = any(operand.op in ("in", "notin") for operand in node.ops)
            if guarded and len(node.ops) > 1:
                raise LookedInsideError("a chain of comparisons")
            self.write("(environment.plain(" if guarded else "((")
            self.visit(node.expr, frame)
            self.write(")")
            self.visit(node.ops[0], frame)
            for operand in node.ops[1:]:
                self.visit(operand, frame)
            self.write(")")

    class Probing(ImmutableSandboxedEnvironment):
        code_generator_class = Generator
        concat = staticmethod(joined)
        plain = staticmethod(_plain)
        intercepted_binops = frozenset(("%",))

        def call(self, context: Any, called: Any, /, *values: Any, **named: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
            # jinja's own arguments begin with an underscore
            given = [*values, *(value for name, value in named.items() if name[0] != "_")]
            if type(getattr(called, "__self__", None)) is str:
                for value in given:
                    _require(type(value) in (str, int, type(None)))
            elif not isinstance(called, Macro) and called not in (Namespace, dict):
                for value in given:
                    _plain(value)
            return super().call(context, called, *values, **named)

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            _require(not isinstance(left, str))
            return super().call_binop(context, operator, left, right)

    environment = template_environment(Probing)
    for known, harmless in ((environment.filters, FILTERS), (environment.tests, TESTS)):
        known.update(dict.fromkeys(known.keys() - harmless, _refused))
    return environment


def _plain(value: Any) -> Any:
    _require(not isinstance(value, Opaque))
    return value


def _require(harmless: bool) -> None:
    if not harmless:
        raise LookedInsideError("what is written in C")


def _refused(*_: Any, **__: Any) -> NoReturn:
    raise LookedInsideError("a filter or a test")
