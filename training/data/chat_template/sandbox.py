"""Where chat templates of model folders and model files are run: they are code that strangers wrote."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any


def template_environment(kind: type[Any] | None = None) -> Any:
    """A sandbox with what transformers' documentation promises to chat templates.

    Args:
        kind: a class of sandboxes; None for jinja's own.
    """
    from jinja2 import TemplateError
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """`{% generation %}` marks the assistant's turn for others; here it is found by rendering."""

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
