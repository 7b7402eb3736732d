"""Compact JSON schemas, since hosts reject servers with large tool lists."""

from __future__ import annotations

from typing import Any

from ..tools.context import ToolResult
from ..training.config.arguments import flat_fields
from ..training.config.settings import Settings


def compact(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema without generated titles, types of constants, and "or null" in optional arguments."""
    return _compact(schema)


def promised(result: type[ToolResult]) -> dict[str, Any]:
    """The schema of a result: the fields that are always there, and those with untrusted text.

    The others come and go with the kind of run, and the list of tools has to stay small.
    """
    schema = compact(result.model_json_schema(mode="serialization"))
    required: list[str] = schema.get("required", [])
    properties: dict[str, dict[str, Any]] = {
        name: _outline(field)
        for name, field in schema.get("properties", {}).items()
        if name in required or name.startswith("untrusted")
    }
    return {"type": "object", "properties": properties, "required": required}


def _outline(field: dict[str, Any]) -> dict[str, Any]:
    """A field without its parts."""
    if "$ref" in field:
        return {"type": "object"}
    return {key: value for key, value in field.items() if key in {"type", "enum"}}


def _compact(node: Any, *, names: bool = False) -> Any:
    """`names`: the keys of `node` are property names, not JSON Schema keywords."""
    if isinstance(node, list):
        return [_compact(item) for item in node]  # pyright: ignore[reportUnknownVariableType]
    if not isinstance(node, dict):
        return node
    fields: dict[str, Any] = node  # pyright: ignore[reportUnknownVariableType]
    if names:
        return {key: _compact(value) for key, value in fields.items()}
    inner = {
        key: _compact(value, names=key in {"properties", "$defs"})
        for key, value in fields.items()
        if key != "title" and not (key == "type" and "const" in fields)  # the value says its type
    }
    return _without_null(inner)


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """An optional argument as its plain type, since an omitted argument is null."""
    options = schema.get("anyOf")
    if "default" not in schema or schema["default"] is not None or not isinstance(options, list):
        return schema
    rest = [option for option in options if option != {"type": "null"}]  # pyright: ignore[reportUnknownVariableType]
    kept = {key: value for key, value in schema.items() if key not in {"anyOf", "default"}}
    return {**rest[0], **kept} if len(rest) == 1 else {**kept, "anyOf": rest}  # pyright: ignore[reportUnknownArgumentType]


def with_defaults(schema: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """The schema of a tool with a dataset argument, with the defaults from the settings."""
    properties: dict[str, dict[str, Any]] = schema.get("properties", {})
    if "dataset" not in properties:
        return schema
    known = flat_fields()
    shown = {name: dict(argument) for name, argument in properties.items()}
    for name in shown.keys() & known.keys():
        group, field, _ = known[name]
        value = getattr(getattr(settings, group), field)
        if value not in (None, [], ""):
            shown[name]["default"] = value
    return {**schema, "properties": shown}
