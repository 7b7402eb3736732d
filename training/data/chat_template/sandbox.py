"""The sandbox for chat templates of model folders and model files, which are untrusted code."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from .template_limit import TemplateLimitError

MAX_TEMPLATE = 2**20
"""Limit of a template's source in characters. The longest in use have a tenth of it."""


def template_environment(kind: type[Any] | None = None) -> Any:
    """A jinja sandbox with the functions and filters that transformers documents for chat templates.

    Args:
        kind: the environment class; None for `BoundedSandbox`.
    """
    from jinja2 import TemplateError
    from jinja2.ext import Extension, loopcontrols

    from .bounded_sandbox import BoundedSandbox

    class Generation(Extension):
        """Accepts `{% generation %}` and ignores it: assistant turns are found by rendering instead."""

        tags = {"generation"}  # noqa: RUF012 - as jinja declares it

        def parse(self, parser: Any) -> Any:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    def raise_exception(message: str) -> None:
        raise TemplateError(message)

    def tojson(value: Any, ensure_ascii: bool = False, **how: Any) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, **how)

    environment = (kind or BoundedSandbox)(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = environment.bounded("tojson", tojson)
    offered: dict[str, Any] = {
        "raise_exception": raise_exception,
        "strftime_now": lambda form: datetime.now().strftime(form),  # pyright: ignore
    }
    environment.globals.update(offered)
    return environment


def compiled_template(environment: Any, source: str) -> Any:
    """A template, ready to render.

    Raises:
        one of `template_errors()`: it is not a template, or is too long or nested too deeply.
    """
    if len(source) > MAX_TEMPLATE:
        raise TemplateLimitError(f"it has {len(source):,} characters; the limit is {MAX_TEMPLATE:,}")
    try:
        return environment.from_string(source)
    except (SyntaxError, MemoryError, RecursionError) as error:
        raise TemplateLimitError(f"it cannot be compiled ({type(error).__name__})") from None


def template_errors() -> tuple[type[Exception], ...]:
    """The exceptions that a template's own code can raise."""
    from jinja2 import TemplateError

    own = (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError, MemoryError)
    return (TemplateError, *own)
