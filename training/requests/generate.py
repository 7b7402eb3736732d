"""The spec of a request for answers from its arguments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..config.specs import GenerateSpec, TrainingSpec
from ..files.paths import PathPolicy
from ..runs.store import RunStore
from .sources import ExportSource, export_source
from .validated import validated

LOADING = ("load_in_4bit", "allow_other_base")
"""Settings of how a model is loaded."""


def generate_spec(
    source: str, prompts: Sequence[str], store: RunStore, paths: PathPolicy, **settings: Any
) -> GenerateSpec:
    """The spec of a request for answers.

    Args:
        source: a run's id, the path of an adapter or model folder, or a model's name.
        store: the runs.
        paths: the folders that may be read.
        settings: fields of `GenerateSpec`, and load_in_4bit and allow_other_base; None means not given.

    Raises:
        InputError: the source does not exist, or an argument is out of bounds.
    """
    meant = export_source(source, store, paths)
    given = {name: value for name, value in settings.items() if value is not None}
    loading = {name: given.pop(name) for name in LOADING if name in given}
    values = {
        **reference_values(meant, store, loading),
        "prompts": list(prompts),
        "roots": meant.roots(paths),
        **given,
    }
    return validated(GenerateSpec, values)


def reference_values(meant: ExportSource, store: RunStore, loading: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a `ModelReference`.

    Args:
        loading: of `LOADING`, what is given.
    """
    defaults = {"load_in_4bit": _in_4bit(meant, store), "allow_other_base": False}
    return {
        "model": meant.model.model_copy(update=defaults | dict(loading)),
        "adapter": str(meant.adapter) if meant.adapter else None,
        "run": meant.run,
    }


def _in_4bit(meant: ExportSource, store: RunStore) -> bool:
    """Whether the adapter was trained on its base in 4 bits."""
    spec = store.find(meant.run).spec() if meant.run else None
    return spec.model.load_in_4bit if isinstance(spec, TrainingSpec) else meant.model.load_in_4bit
