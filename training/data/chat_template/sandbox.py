"""The sandbox for chat templates of model folders and model files, which are untrusted code."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any


def template_environment(kind: type[Any] | None = None) -> Any:
    """A jinja sandbox with the functions and filters that transformers documents for chat templates.

    Args:
        kind: the environment class; None for `ImmutableSandboxedEnvironment`.
    """
    from jinja2 import TemplateError
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

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

    environment = (kind or ImmutableSandboxedEnvironment)(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = tojson
    offered: dict[str, Any] = {
        "raise_exception": raise_exception,
        "strftime_now": lambda form: datetime.now().strftime(form),  # pyright: ignore
    }
    environment.globals.update(offered)
    return environment


def template_errors() -> tuple[type[Exception], ...]:
    """The exceptions that a template's own code can raise."""
    from jinja2 import TemplateError

    own = (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError)
    return (TemplateError, *own)
