"""What makes two requests equal: their specs, and the content of what they read."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from ..config.results import RegisterResult
from ..config.specs import AnySpec, DataGroup, DataSpec, EvaluateSpec, ModelReference, ModelSpec, RegisterSpec
from ..events import ShouldStop
from ..files.paths import PathPolicy
from ..runs.folder import RunFolder
from ..runs.model_stamp import model_stamp
from .checks import models_of


def fingerprint_of(spec: AnySpec, home: Path, should_stop: ShouldStop) -> str:
    """Hash of the inputs of a run: its spec, the content of its datasets, size and time of its other files.

    Raises:
        BackpropagateError: a dataset cannot be read.
    """
    # Here: a server answers its first request without the readers of datasets.
    from ..data.local_source import content_of

    policy = PathPolicy.from_record(spec.roots, home)
    contents = [content_of(data, policy.permit, should_stop) for data in _datasets(spec)]
    content = " ".join(filter(None, [*contents, _stamp(spec)]))
    request = json.dumps(spec.arguments(), sort_keys=True)
    return hashlib.sha256(f"{request}\n{content}".encode()).hexdigest()


def is_gone(run: RunFolder) -> bool:
    """Whether the run made something elsewhere that is not there any more: a model of an Ollama server."""
    result = run.state().result
    if not isinstance(result, RegisterResult):
        return False
    from ..export.ollama.register import is_registered

    return not is_registered(result.name, result.digest)


def _datasets(spec: AnySpec) -> list[DataGroup]:
    """The datasets that a run reads, as far as its request names them."""
    if isinstance(spec, DataSpec):
        return spec.datasets
    return [spec.data] if isinstance(spec, EvaluateSpec) and spec.data.source is not None else []


def _stamp(spec: AnySpec) -> str:
    """Size and time of the run's input files: a rewritten file, e.g. by a resumed run, is a new request."""
    if isinstance(spec, ModelSpec):
        return " ".join(model_stamp(one) for one in models_of(spec) if isinstance(one, ModelReference))
    if not isinstance(spec, RegisterSpec) or not Path(spec.gguf).is_file():
        return ""
    found = Path(spec.gguf).stat()
    return f"{found.st_size} {found.st_mtime_ns}"
