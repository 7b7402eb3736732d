"""The spec of a registration with Ollama from its arguments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..config.ollama_names import model_name
from ..config.ollama_parameters import checked_parameters
from ..config.specs import RegisterSpec
from ..files.paths import PathPolicy
from ..runs.store import RunStore
from .sources import gguf_source
from .validated import validated


def register_spec(
    source: str,
    name: str,
    store: RunStore,
    paths: PathPolicy,
    *,
    system: str | None = None,
    parameters: Mapping[str, Any] | None = None,
    keep_template: bool = False,
    overwrite: bool = False,
    question: str | None = None,
) -> RegisterSpec:
    """The spec of a registration with Ollama.

    Args:
        source: path of a .gguf file, the id of a GGUF export, or of a training that has one.
        store: the runs.
        paths: the folders that may be read.

    Raises:
        InputError: the file or run does not exist, or the run has no GGUF file.
        OllamaError: Ollama does not accept the name or a parameter.
    """
    meant = gguf_source(source, store, paths)
    values = {
        "gguf": str(meant.path),
        "run": meant.run,
        "name": str(model_name(name)),
        "system": system,
        "parameters": checked_parameters(parameters or {}),
        "keep_template": keep_template,
        "overwrite": overwrite,
        "question": question,
        "roots": paths.recorded(),
    }
    return validated(RegisterSpec, values)
