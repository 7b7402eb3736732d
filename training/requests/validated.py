"""Validates values as a spec; errors use the names that users type."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from ..config.arguments import explain
from ..config.specs import DataSpec, Spec
from ..errors import InputError
from ..redact import looks_secret

SpecType = TypeVar("SpecType", bound=Spec)


def validated(kind: type[SpecType], values: Mapping[str, Any]) -> SpecType:
    """`values` as a spec; errors use the flat name of the argument."""
    try:
        spec = kind.model_validate(dict(values))
    except ValidationError as error:
        raise InputError(explain(error), hint="Correct the argument and call again.") from None
    if isinstance(spec, DataSpec) and any(data.source is None for data in spec.datasets):
        raise InputError("dataset is missing.", hint="Give the path of a file, a folder or a Hub dataset.")
    if looks_secret(spec.model_dump_json()):
        raise InputError(
            "An argument looks like a secret (an access token or a key).",
            hint="Secrets are never stored in a run. Set HF_TOKEN in the environment instead.",
        )
    return spec
