"""A text that stands for any other, and writes down what it is asked.

A chat template that is rendered with opaque contents shows what it does with every conversation for which the
questions have the same answers: which constant text it puts where, and whether it trims a content. Contents
may be trimmed, joined to other texts and asked a few questions; whatever else would look inside them raises
`LookedInsideError`, since what follows from that cannot be told for other texts.
"""

from __future__ import annotations

from typing import Any, NamedTuple, NoReturn

TRIMS = frozenset(("strip", "lstrip", "rstrip"))
Trim = tuple[str, str | None]
"""One of these methods, and the characters that it takes away: white space if None."""


class LookedInsideError(Exception):
    """What a template does depends on more of a content than can be told beforehand."""


class Slot(NamedTuple):
    """The place of a message's content, which is trimmed before it is put there."""

    message: int
    trims: tuple[Trim, ...] = ()

    def filled(self, content: str) -> str:
        for method, characters in self.trims:
            content = getattr(content, method)(characters)
        return content


class Question(NamedTuple):
    """What was asked of a slot, and answered: `method` is one of a string's."""

    slot: Slot
    method: str
    argument: tuple[str, ...]
    answer: bool

    def holds_for(self, content: str) -> bool:
        """Whether another content gives the same answer."""
        return bool(getattr(self.slot.filled(content), self.method)(*self.argument)) is self.answer


Part = str | Slot


class Opaque(str):
    """A content, or constant texts and contents one after the other.

    Args:
        parts: what it is made of.
        asked: where questions are written down.
    """

    parts: tuple[Part, ...]
    asked: list[Question]

    def __new__(cls, text: str, parts: tuple[Part, ...], asked: list[Question]) -> Opaque:
        made = super().__new__(cls, text)
        made.parts, made.asked = parts, asked
        return made

    def __getattribute__(self, name: str) -> Any:
        if name in READABLE or (name.startswith("__") and name.endswith("__")):
            return super().__getattribute__(name)
        raise LookedInsideError(name)

    def __str__(self) -> str:
        return self

    def __add__(self, other: str) -> Opaque:
        return joined((self, other))

    def __radd__(self, other: str) -> Opaque:
        return joined((other, self))

    def strip(self, chars: str | None = None, /) -> Opaque:
        return self._trimmed("strip", chars)

    def lstrip(self, chars: str | None = None, /) -> Opaque:
        return self._trimmed("lstrip", chars)

    def rstrip(self, chars: str | None = None, /) -> Opaque:
        return self._trimmed("rstrip", chars)

    def startswith(self, *asked: Any) -> bool:
        return self._answer("startswith", *asked)

    def endswith(self, *asked: Any) -> bool:
        return self._answer("endswith", *asked)

    def __contains__(self, asked: Any) -> bool:
        return self._answer("__contains__", asked)

    def __eq__(self, other: object) -> bool:
        return self._answer("__eq__", other) if isinstance(other, str) else False

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __bool__(self) -> bool:
        return self._answer("__len__")

    def _slot(self) -> Slot:
        if len(self.parts) == 1 and isinstance(self.parts[0], Slot):
            return self.parts[0]
        raise LookedInsideError("a text that holds a content")

    def _trimmed(self, method: str, characters: str | None) -> Opaque:
        if isinstance(characters, Opaque):
            raise LookedInsideError(method)
        slot = self._slot()
        trims = (*slot.trims, (method, characters))
        return Opaque(getattr(str, method)(self, characters), (Slot(slot.message, trims),), self.asked)

    def _answer(self, method: str, *argument: Any) -> bool:
        if any(type(text) is not str for text in argument):
            raise LookedInsideError(method)
        answer = bool(getattr(str, method)(self, *argument))
        self.asked.append(Question(self._slot(), method, argument, answer))
        return answer


READABLE = TRIMS | {"parts", "asked", "startswith", "endswith", "_slot", "_trimmed", "_answer"}


def _look_inside(*_: object) -> NoReturn:
    raise LookedInsideError("the text itself")


for _name in ("iter", "len", "getitem", "hash", "lt", "le", "gt", "ge", "mod", "rmod", "mul", "rmul",
              "format", "repr", "getnewargs", "reduce", "reduce_ex"):  # fmt: skip
    setattr(Opaque, f"__{_name}__", _look_inside)


def joined(texts: Any) -> Any:
    """Texts one after the other, some of which may be opaque; what `"".join` is otherwise."""
    pieces = [str(text) for text in texts]
    opaque = next((piece for piece in pieces if isinstance(piece, Opaque)), None)
    if opaque is None:
        return "".join(pieces)
    parts = tuple(part for piece in pieces for part in parts_of(piece))
    return Opaque(str.join("", pieces), parts, opaque.asked)


def parts_of(text: str) -> tuple[Part, ...]:
    return text.parts if isinstance(text, Opaque) else (text,)
