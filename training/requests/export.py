"""The spec of an export from its arguments."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from ..config.fields import ExportFormat
from ..config.quantizations import AS_STORED, DEFAULT, default_quantization, known_quantization, require
from ..config.specs import ExportSpec, ModelGroup
from ..errors import BackpropagateError, InputError
from ..files.output_folder import check_output
from ..files.paths import PathPolicy
from ..models.expert_layers import is_mxfp4
from ..planning.model_facts import model_facts
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
        quantization: of a GGUF; None: `default_quantization`, or q8_0 of a model whose experts stay in MXFP4.
        allow_other_base: accept a base model that is no longer the one that was trained on.
        output: absolute path that may be written.

    Raises:
        InputError: the source or the quantization does not exist, or the format has no quantization.
        MissingExtraError: the quantization needs llama-cpp-python.
    """
    meant = export_source(source, store, paths)
    if format == "gguf":
        quantization = known_quantization(quantization or _usual_quantization(meant.model, store, imatrix))
        require(quantization, imatrix)
    elif quantization is not None or imatrix:
        name = "imatrix" if quantization is None else "quantization"
        raise InputError(
            f"{name}: only a GGUF file is quantized, not format={format}.", hint=f"Leave {name} out."
        )
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


def _usual_quantization(model: ModelGroup, store: RunStore, imatrix: bool) -> str:
    with suppress(BackpropagateError):  # of a model that cannot be read; the worker says so
        facts = model_facts(model, store.home / "models", ask_hub=False)
        if facts and facts.config and is_mxfp4(facts.config):
            return AS_STORED
    return default_quantization(imatrix)
