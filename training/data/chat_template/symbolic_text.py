"""Symbolic execution of chat templates: a string that stands for any message content.

A template is rendered once with symbolic contents (King, 1976). They record where the template puts each
content, how it trims it, and each condition that it tests (the path condition). The result is valid for every
conversation whose contents satisfy the same conditions.

Supported operations: trim, concatenate, and a few tests (`startswith`, `endswith`, `in`, `==`, truth value).
All other operations depend on the actual characters and raise `ConcreteTextNeededError`.
"""

from __future__ import annotations

from typing import Any, NamedTuple, NoReturn

TRIMS = frozenset(("strip", "lstrip", "rstrip"))
Trim = tuple[str, str | None]
"""A method of `TRIMS` and the characters that it removes; None: white space."""


class ConcreteTextNeededError(Exception):
    """The template uses a content in a way that depends on its actual characters."""


class Slot(NamedTuple):
    """The position of a message's content in the rendered text, and how the content is trimmed."""

    message: int
    trims: tuple[Trim, ...] = ()

    def filled(self, content: str) -> str:
        for method, characters in self.trims:
            content = getattr(content, method)(characters)
        return content


class Condition(NamedTuple):
    """A test of a content during rendering and its result. `method` is a method of `str`."""

    slot: Slot
    method: str
    argument: tuple[str, ...]
    answer: bool

    def holds_for(self, content: str) -> bool:
        """Whether the test gives the same result for another content."""
        return bool(getattr(self.slot.filled(content), self.method)(*self.argument)) is self.answer


Part = str | Slot


class SymbolicText(str):
    """A symbolic string, for symbolic execution of a template: a content, or constants and contents joined.

    Args:
        parts: the constants and the slots that it consists of.
        conditions: shared list to which each test of a content is appended.
    """

    parts: tuple[Part, ...]
    conditions: list[Condition]

    def __new__(cls, text: str, parts: tuple[Part, ...], conditions: list[Condition]) -> SymbolicText:
        made = super().__new__(cls, text)
        made.parts, made.conditions = parts, conditions
        return made

    def __getattribute__(self, name: str) -> Any:
        if name in READABLE or (name.startswith("__") and name.endswith("__")):
            return super().__getattribute__(name)
        raise ConcreteTextNeededError(name)

    def __str__(self) -> str:
        return self

    def __add__(self, other: str) -> SymbolicText:
        return joined((self, other))

    def __radd__(self, other: str) -> SymbolicText:
        return joined((other, self))

    def strip(self, chars: str | None = None, /) -> SymbolicText:
        return self._trimmed("strip", chars)

    def lstrip(self, chars: str | None = None, /) -> SymbolicText:
        return self._trimmed("lstrip", chars)

    def rstrip(self, chars: str | None = None, /) -> SymbolicText:
        return self._trimmed("rstrip", chars)

    def startswith(self, *texts: Any) -> bool:
        return self._answer("startswith", *texts)

    def endswith(self, *texts: Any) -> bool:
        return self._answer("endswith", *texts)

    def __contains__(self, text: Any) -> bool:
        return self._answer("__contains__", text)

    def __eq__(self, other: object) -> bool:
        return self._answer("__eq__", other) if isinstance(other, str) else False

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __bool__(self) -> bool:
        return self._answer("__len__")

    def _slot(self) -> Slot:
        if len(self.parts) == 1 and isinstance(self.parts[0], Slot):
            return self.parts[0]
        raise ConcreteTextNeededError("a joined text")

    def _trimmed(self, method: str, characters: str | None) -> SymbolicText:
        if isinstance(characters, SymbolicText):
            raise ConcreteTextNeededError(method)
        slot = self._slot()
        trims = (*slot.trims, (method, characters))
        return SymbolicText(
            getattr(str, method)(self, characters), (Slot(slot.message, trims),), self.conditions
        )

    def _answer(self, method: str, *argument: Any) -> bool:
        if any(type(text) is not str for text in argument):
            raise ConcreteTextNeededError(method)
        answer = bool(getattr(str, method)(self, *argument))
        self.conditions.append(Condition(self._slot(), method, argument, answer))
        return answer


READABLE = TRIMS | {"parts", "conditions", "startswith", "endswith", "_slot", "_trimmed", "_answer"}


def _needs_concrete_text(*_: object) -> NoReturn:
    raise ConcreteTextNeededError("the characters")


for _name in ("iter", "len", "getitem", "hash", "lt", "le", "gt", "ge", "mod", "rmod", "mul", "rmul",
              "format", "repr", "getnewargs", "reduce", "reduce_ex"):  # fmt: skip
    setattr(SymbolicText, f"__{_name}__", _needs_concrete_text)


def joined(texts: Any) -> Any:
    """Like `"".join`, for texts some of which may be symbolic."""
    pieces = [str(text) for text in texts]
    symbolic = next((piece for piece in pieces if isinstance(piece, SymbolicText)), None)
    if symbolic is None:
        return "".join(pieces)
    parts = tuple(part for piece in pieces for part in parts_of(piece))
    return SymbolicText(str.join("", pieces), parts, symbolic.conditions)


def parts_of(text: str) -> tuple[Part, ...]:
    """The constants and slots of a text."""
    return text.parts if isinstance(text, SymbolicText) else (text,)
