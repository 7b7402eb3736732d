"""The constant text that a chat template puts around the contents of all conversations with the same roles.

Most templates put constant text before, between and after the contents, and test a content only for a few
things, such as a think block. So the template is executed once per sequence of roles, with symbolic contents
(symbolic_text.py). Other conversations with these roles are then built from the skeleton, without running the
template, which is much faster.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any, NamedTuple, NoReturn

from ..formats.messages import Message
from .sandbox import compiled_template, template_environment, template_errors
from .symbolic_text import ConcreteTextNeededError, Condition, Part, Slot, SymbolicText, joined, parts_of

FILTERS = frozenset(
    ("count", "d", "default", "first", "last", "length", "list", "rejectattr", "selectattr", "trim")
)
TESTS = frozenset(
    ("!=", "==", "boolean", "defined", "divisibleby", "eq", "equalto", "even", "false", "integer", "iterable",
     "mapping", "ne", "none", "number", "odd", "sequence", "string", "true", "undefined")
)  # fmt: skip
"""Jinja's filters and tests that use a text only through its own methods, which `SymbolicText` controls."""


class Skeleton(NamedTuple):
    """The rendered form of conversations with the same roles.

    Args:
        pieces: (messages + 1,) the constant text before, between and after the contents.
        slots: (messages,) how each content is inserted.
        conditions: the skeleton is valid for a conversation if all of these hold for its contents.
    """

    pieces: list[str]
    slots: list[Slot]
    conditions: list[Condition]

    def contents(self, messages: Sequence[Message]) -> list[str] | None:
        """The contents as rendered; None if the skeleton is not valid for this conversation."""
        for condition in self.conditions:
            if not condition.holds_for(messages[condition.slot.message]["content"]):
                return None
        return [slot.filled(message["content"]) for slot, message in zip(self.slots, messages, strict=True)]

    def text(self, contents: Sequence[str]) -> str:
        """The rendered conversation."""
        texts = [""] * (2 * len(contents) + 1)
        texts[::2], texts[1::2] = self.pieces, contents
        return "".join(texts)


def skeleton_of(source: str, variables: dict[str, Any], roles: Sequence[str]) -> Skeleton | None:
    """The skeleton of conversations with these roles and without tools.

    Args:
        source: the template.
        variables: what the template reads besides the messages.

    Returns:
        None if there is none: the template refuses the roles, does not render each content exactly once and
        in order, or needs the actual characters of a content.
    """
    conditions: list[Condition] = []
    messages = [
        {"role": role, "content": SymbolicText(f"70315926480{index}", (Slot(index),), conditions)}
        for index, role in enumerate(roles)
    ]
    try:
        rendered = _probed(source).render(messages=messages, **variables)
    except (ConcreteTextNeededError, *template_errors()):
        return None
    return _skeleton(parts_of(rendered), len(roles), conditions)


def _skeleton(parts: Sequence[Part], messages: int, conditions: list[Condition]) -> Skeleton | None:
    pieces, slots = [""], list[Slot]()
    for part in parts:
        if isinstance(part, Slot):
            slots.append(part)
            pieces.append("")
        else:
            pieces[-1] += part
    if [slot.message for slot in slots] != list(range(messages)):
        return None
    return Skeleton(pieces, slots, list(dict.fromkeys(conditions)))


@cache
def _probed(source: str) -> Any:
    return compiled_template(_probing_environment(), source)


@cache
def _probing_environment() -> Any:
    """A jinja environment in which every read of a symbolic text is recorded or refused.

    The methods and operators of `str` are written in C and read a subclass's characters directly. So they are
    refused where a symbolic text is their right operand, or an element of a tuple or a list there.
    """
    from jinja2.nodes import Compare
    from jinja2.runtime import Macro
    from jinja2.utils import Namespace

    from .bounded_sandbox import BoundedGenerator, BoundedSandbox

    class Generator(BoundedGenerator):
        def visit_Compare(self, node: Compare, frame: Any) -> None:
            guarded = any(operand.op in ("in", "notin") for operand in node.ops)
            if guarded and len(node.ops) > 1:
                raise ConcreteTextNeededError("a chain of comparisons")
            self.write("(environment.plain(" if guarded else "((")
            self.visit(node.expr, frame)
            self.write(")")
            self.visit(node.ops[0], frame)
            for operand in node.ops[1:]:
                self.visit(operand, frame)
            self.write(")")

    class Probing(BoundedSandbox):
        code_generator_class = Generator
        plain = staticmethod(_plain)

        def joined(self, texts: Iterable[str]) -> str:
            return joined(texts)

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
            _require(operator != "%" or not isinstance(left, str))
            return super().call_binop(context, operator, left, right)

    environment = template_environment(Probing)
    for known, harmless in ((environment.filters, FILTERS), (environment.tests, TESTS)):
        known.update(dict.fromkeys(known.keys() - harmless, _refused))
    return environment


def _plain(value: Any) -> Any:
    _require(not isinstance(value, SymbolicText))
    return value


def _require(harmless: bool) -> None:
    if not harmless:
        raise ConcreteTextNeededError("a function written in C")


def _refused(*_: Any, **__: Any) -> NoReturn:
    raise ConcreteTextNeededError("a filter or a test")
