"""A jinja sandbox whose templates have a limit of time and memory per call, since they are untrusted code.

Every loop and macro of the compiled template counts its steps, and every text, list and number that could
grow is counted before it is made. Filters whose cost is not known do not exist.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator
from functools import wraps
from typing import Any, cast

from jinja2 import Template
from jinja2.compiler import CodeGenerator
from jinja2.nodes import CallBlock, EnvironmentAttribute, ExprStmt, For, Macro, TemplateData
from jinja2.runtime import Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from .template_limit import TemplateLimitError

MAX_WORK = 2**27
"""Limit of a call: the characters of all its texts, plus `STEP` for each step and `NODE` for each value."""
BASE_WORK, TURN_WORK, CHARACTER_WORK = 2**23, 2**17, 64
"""What a call may use: some, and more for each turn and character of the conversation."""
STEP, NODE = 128, 64
MAX_S = 4.0
"""Limit of a call in seconds of this thread's processor time; a machine that sleeps uses none."""
CLOCK_EVERY = 16
MAX_BITS = 2**14
"""Limit of a number."""
MAX_COUNT = 2**20
"""Limit of a width or count that is given to a function."""
FORMAT_WIDTH = 1000

TEXT_FILTERS = frozenset(
    ("capitalize", "e", "escape", "forceescape", "format", "indent", "join", "lower", "replace", "safe",
     "string", "title", "tojson", "trim", "truncate", "upper", "urlencode", "wordcount")
)  # fmt: skip
"""Filters that make a text of any value."""
OTHER_FILTERS = frozenset(
    ("abs", "attr", "batch", "count", "d", "default", "dictsort", "filesizeformat", "first", "float",
     "groupby", "int", "items", "last", "length", "list", "map", "max", "min", "random", "reject",
     "rejectattr", "reverse", "round", "select", "selectattr", "sort", "sum", "unique")
)  # fmt: skip
REFUSED_METHODS = frozenset(("translate", "maketrans", "to_bytes", "from_bytes", "fromkeys"))
"""Methods whose result may be any number of times longer than what they are given."""


class Allowance:
    """What a call of a template may still use."""

    def __init__(self, work: int = 2**62) -> None:
        self._limit = self._left = min(work, MAX_WORK)
        self._until = time.thread_time() + MAX_S
        self._calls = 0

    def take(self, count: int) -> None:
        """Raises TemplateLimitError if the limit is reached."""
        self._left -= count
        self._calls += 1
        if self._left < 0:
            raise TemplateLimitError(
                f"it makes more than {self._limit:,} characters or {self._limit // STEP:,} steps"
            )
        if self._calls % CLOCK_EVERY == 0 and time.thread_time() > self._until:
            raise TemplateLimitError(f"it computes for more than {MAX_S:.0f} seconds")


class BoundedGenerator(CodeGenerator):
    """Compiles a template so that its texts and lists are counted by its environment."""

    def visit_Concat(self, node: Any, frame: Any) -> None:
        self._within("concatenated((", node.nodes, "))", frame)

    def visit_List(self, node: Any, frame: Any) -> None:
        self._within("counted([", node.items, "])", frame)

    def visit_Tuple(self, node: Any, frame: Any) -> None:
        if node.ctx == "load":
            self._within("counted((", node.items, "))", frame)
        else:
            super().visit_Tuple(node, frame)

    def visit_Dict(self, node: Any, frame: Any) -> None:
        self.write("environment.counted(")
        super().visit_Dict(node, frame)
        self.write(")")

    def _within(self, opening: str, items: Iterable[Any], closing: str, frame: Any) -> None:
        self.write(f"environment.{opening}")
        for item in items:
            self.visit(item, frame)
            self.write(", ")
        self.write(closing)

    def _output_child_pre(self, node: Any, frame: Any, finalize: Any) -> None:
        self.write("environment.text(")


class BoundedTemplate(Template):
    """A template with an allowance of its own for each rendering."""

    def render(self, *given: Any, **named: Any) -> str:
        sandbox = cast("BoundedSandbox", self.environment)
        sandbox.allowance = Allowance()
        shown = cast("list[Any]", named.get("messages") or [])
        characters = sandbox.size([shown, named.get("tools")])
        sandbox.allowance = Allowance(BASE_WORK + TURN_WORK * len(shown) + CHARACTER_WORK * characters)
        return super().render(*given, **named)


class BoundedSandbox(ImmutableSandboxedEnvironment):
    """An immutable sandbox with an `Allowance` for each rendering."""

    code_generator_class = BoundedGenerator
    template_class = BoundedTemplate
    intercepted_binops = frozenset(("+", "*", "**", "%"))

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.allowance = Allowance()
        del self.globals["lipsum"]
        self.filters = {name: self.bounded(name, self.filters[name]) for name in TEXT_FILTERS | OTHER_FILTERS}

    def bounded(self, name: str, known: Callable[..., Any]) -> Callable[..., Any]:
        """A filter that counts what it makes before it makes it."""
        skipped = 1 if hasattr(known, "jinja_pass_arg") else 0

        @wraps(known)
        def bounded(*values: Any, **named: Any) -> Any:
            before, value, given = values[:skipped], values[skipped], values[skipped + 1 :]
            value = _listed(value) if name == "join" else value
            _check_filter(self, name, value, [*given, *named.values()])
            return known(*before, value, *given, **named)

        return bounded

    def _parse(self, source: str, name: str | None, filename: str | None) -> Any:
        self.allowance = Allowance()
        tree = super()._parse(source, name, filename)
        for node in tree.find_all((For, Macro, CallBlock)):
            constant = sum(len(data.data) for data in node.find_all(TemplateData))
            step = ExprStmt(EnvironmentAttribute(f"allowance.take({STEP + constant})"))
            node.body.insert(0, step.set_lineno(node.lineno))
        return tree

    def joined(self, texts: Iterable[str]) -> str:
        """`"".join`."""
        return "".join(texts)

    def concat(self, parts: Iterable[str]) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """What a template, a macro or a block has written; called by jinja."""
        return self.joined(self._taken(parts))

    def _taken(self, parts: Iterable[str]) -> Iterator[str]:
        for part in parts:
            self.allowance.take(str.__len__(part))
            yield part

    def concatenated(self, parts: Iterable[Any]) -> str:
        """The operator `~`."""
        return self.joined([self.text(part) for part in parts])

    def text(self, value: Any) -> str:
        """`str(value)`."""
        self.allowance.take(self.size(value))
        return str(value)

    def counted(self, value: Any) -> Any:
        """A list, tuple or dict that the template makes. It may contain itself many times over."""
        self.size(value, texts=False)
        return value

    def size(self, value: Any, *, texts: bool = True, indent: int = 0) -> int:
        """The characters of all texts in a value; each value in it is counted at once."""
        if isinstance(value, str):
            return str.__len__(value)
        total, waiting = 0, [(value, 1)]
        while waiting:
            item, depth = waiting.pop()
            self.allowance.take(NODE + depth * indent)
            if isinstance(item, Namespace):
                item = cast("dict[str, Any]", item._Namespace__attrs)  # pyright: ignore
            if isinstance(item, str):
                total += str.__len__(item) if texts else 0
                if total > MAX_WORK:
                    self.allowance.take(total)
            elif isinstance(item, dict):
                known = cast("dict[Any, Any]", item)
                waiting += [(part, depth + 1) for pair in known.items() for part in pair]
            elif isinstance(item, list | tuple):
                waiting += [(part, depth + 1) for part in cast("list[Any]", item)]
        return total

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "%" and isinstance(left, str):
            self.check_format(left, right)
        elif operator == "*":
            self._check_product(left, right)
        elif operator == "+":
            self.allowance.take(_length(left) + _length(right))
        elif operator == "**" and abs(_bits(left) * int(right)) > MAX_BITS:
            raise TemplateLimitError("it computes a power that is too large")
        return super().call_binop(context, operator, left, right)

    def _check_product(self, left: Any, right: Any) -> None:
        if isinstance(left, int) and isinstance(right, int):
            if _bits(left) + _bits(right) > MAX_BITS:
                raise TemplateLimitError("it computes a product that is too large")
        else:
            for value, times in ((left, right), (right, left)):
                if isinstance(times, int):
                    self.allowance.take(_length(value) * max(0, times))

    def check_format(self, form: str, *values: Any) -> None:
        """Counts what a format makes at most. Each of its fields may show each value, in a width."""
        if re.search(r"[%{][^%}]{0,100}\d{4}", form):
            raise TemplateLimitError("it formats a text with a width of more than 3 digits")
        if "*" in form or "{:" in form:
            self.check_counts(values, FORMAT_WIDTH)
        fields = form.count("%") + form.count("{")
        self.allowance.take(len(form) + fields * (FORMAT_WIDTH + self.size(list(values))))

    def check_counts(self, values: Iterable[Any], limit: int = MAX_COUNT) -> None:
        """Raises TemplateLimitError for a number above `limit`."""
        for value in values:
            if isinstance(value, tuple):
                self.check_counts(cast("tuple[Any, ...]", value), limit)
            elif isinstance(value, int) and abs(value) > limit:
                raise TemplateLimitError(f"it gives a function a number above {limit:,}")

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        formatted = super().wrap_str_format(value)
        if formatted is None:
            return None

        @wraps(formatted)
        def bounded(*values: Any, **named: Any) -> str:
            self.check_format(value.__self__, *values, *named.values())
            return formatted(*values, **named)

        return bounded

    def call(self, context: Any, called: Any, /, *values: Any, **named: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        owner: Any = getattr(called, "__self__", None)
        if isinstance(owner, str | bytes | int | float | list | tuple | dict):
            if isinstance(owner, str) and called.__name__ == "join" and values:
                values = (_listed(values[0]), *values[1:])
            self._check_method(owner, called.__name__, [*values, *named.values()])
        result = super().call(context, called, *values, **named)
        if isinstance(result, str):
            self.allowance.take(str.__len__(result))
        elif isinstance(result, list):
            self.allowance.take(NODE * len(cast("list[Any]", result)))
        elif isinstance(result, dict):
            self.counted(result)
        return cast("Any", result)

    def _check_method(self, owner: Any, name: str, values: list[Any]) -> None:
        if name in REFUSED_METHODS:
            raise TemplateLimitError(f"it calls {name}, which chat templates do not need")
        self.check_counts(values)
        if isinstance(owner, str) and values:
            if name == "replace":
                self.check_replace(owner, *values)
            elif name == "join":
                self.allowance.take(self.size(values[0]) + str.__len__(owner) * len(values[0]))
            elif name == "expandtabs":
                self.allowance.take(owner.count("\t") * int(values[0]))

    def check_replace(self, text: str, old: Any = "", new: Any = "", *_: Any) -> None:
        """Counts what a replacement makes at most."""
        times = str.__len__(text) // max(1, _length(old)) + 1
        self.allowance.take(str.__len__(text) + times * _length(new))


def _check_filter(sandbox: BoundedSandbox, name: str, value: Any, given: list[Any]) -> None:
    sandbox.check_counts(given)
    if name == "sum" and any(isinstance(start, list | tuple) for start in given):
        raise TemplateLimitError("it sums lists")
    if name == "round" and any(isinstance(digits, int) and abs(digits) > 100 for digits in given):
        raise TemplateLimitError("it rounds to more than 100 digits")
    if name not in TEXT_FILTERS:
        sandbox.allowance.take(STEP + _length(value) + sum(n for n in given if isinstance(n, int) and n > 0))
    elif name == "format":
        sandbox.check_format(str(value), *given)
    elif name == "replace":
        sandbox.check_replace(sandbox.text(value), *given)
    else:
        width = max([4, *(n if isinstance(n, int) else _length(n) for n in given)])
        indented = isinstance(value, str) and name == "indent"
        lines = value.count("\n") + 1 if indented else 1
        items = len(value) if name == "join" and isinstance(value, list | tuple) else lines  # pyright: ignore[reportUnknownArgumentType]
        sandbox.allowance.take(sandbox.size(value, indent=width if name == "tojson" else 0) + width * items)


def _listed(value: Any) -> Any:
    """A generator's items as a list, so that they can be counted."""
    known = isinstance(value, str | list | tuple | dict)
    return cast("Any", value) if known else list(value)


def _length(value: Any) -> int:
    """The characters or items of a value; 0 for a number."""
    if isinstance(value, str):
        return str.__len__(value)
    return len(value) if isinstance(value, list | tuple | dict | bytes) else 0  # pyright: ignore[reportUnknownArgumentType]


def _bits(value: Any) -> int:
    return 0 if isinstance(value, Undefined | float) else int(value).bit_length()
