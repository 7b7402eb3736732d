"""Validates values as a spec; errors use the names that users type."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from ..config.arguments import explain
from ..config.specs import DataSpec, MultiRunSpec, Spec, TrainingSpec
from ..errors import InputError
from ..redact import looks_secret

SpecType = TypeVar("SpecType", bound=Spec)


def validated(kind: type[SpecType], values: Mapping[str, Any], *, needs_dataset: bool = True) -> SpecType:
    """`values` as a spec; errors use the flat name of the argument."""
    try:
        spec = kind.model_validate(dict(values))
    except ValidationError as error:
        raise InputError(explain(error), hint="Correct the argument and call again.") from None
    without = isinstance(spec, DataSpec) and any(data.source is None for data in spec.datasets)
    if without and needs_dataset:
        raise InputError("dataset is missing.", hint="Give the path of a file, a folder or a Hub dataset.")
    _require_shareable(spec)
    if looks_secret(spec.model_dump_json()):
        raise InputError(
            "An argument looks like a secret (an access token or a key).",
            hint="Secrets are never stored in a run. Set HF_TOKEN in the environment instead.",
        )
    return spec


def _require_shareable(spec: Spec) -> None:
    """Refuse several GPUs where only one would be used, and weights sharded over one."""
    if not isinstance(spec, TrainingSpec):
        return
    if spec.training.gpus == 1:
        if spec.training.weights == "sharded":
            raise InputError(
                "weights: sharded is for several GPUs, and gpus is 1.",
                hint='Set gpus to 2 or more or to "all", or leave weights at auto.',
            )
        return
    engine = spec.training.engine
    if isinstance(spec, MultiRunSpec):
        what = "the trainings of a multi-run use one GPU"
    elif engine in ("trl", "unsloth"):
        what = f"the engine {engine} uses one GPU"
    else:
        return
    raise InputError(
        f"gpus: {what}, not {spec.training.gpus}.",
        hint="Set gpus=1; engine=auto can use several in a single training.",
    )
