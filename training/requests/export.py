"""The spec of an export from its arguments."""

from __future__ import annotations

from pathlib import Path

from ..config.fields import ExportFormat
from ..config.quantizations import DEFAULT, default_quantization, known_quantization, require
from ..config.specs import ExportSpec
from ..errors import InputError
from ..files.output_folder import check_output
from ..files.paths import PathPolicy
from ..runs.store import RunStore
from .sources import export_source
from .validated import validated


def check_export_output(spec: ExportSpec) -> None:
    """Refuse an output that is in use; a GGUF gets a name of its own in an existing folder.

    Raises:
        InputError: it exists.
    """
    if spec.format != "gguf" or spec.output is None or not Path(spec.output).is_dir():
        check_output(spec.output)


def export_spec(
    source: str,
    store: RunStore,
    paths: PathPolicy,
    *,
    format: ExportFormat = "gguf",
    quantization: str | None = None,
    imatrix: bool = False,
    allow_other_base: bool = False,
    output: str | None = None,
) -> ExportSpec:
    """The spec of an export.

    Args:
        source: a run's id, the path of an adapter or model folder, or a model's name.
        store: the runs.
        paths: the folders that may be read.
        quantization: of a GGUF; None: `default_quantization`.
        allow_other_base: accept a base model that is no longer the one that was trained on.
        output: absolute path that may be written.

    Raises:
        InputError: the source or the quantization does not exist.
        MissingExtraError: the quantization needs llama-cpp-python.
    """
    meant = export_source(source, store, paths)
    if format == "gguf":
        quantization = known_quantization(quantization or default_quantization(imatrix))
        require(quantization, imatrix)
    if imatrix and meant.run is None:
        raise InputError(
            "imatrix needs the held-out rows of a training run.", hint="Give a run id, or leave imatrix out."
        )
    values = {
        "model": meant.model.model_copy(update={"allow_other_base": allow_other_base}),
        "adapter": str(meant.adapter) if meant.adapter else None,
        "run": meant.run,
        "format": format,
        "quantization": quantization or DEFAULT,
        "imatrix": imatrix,
        "output": output,
        "roots": meant.roots(paths),
    }
    return validated(ExportSpec, values)
