"""The spec of an export from its arguments."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from ..config.fields import ExportFormat
from ..config.quantizations import (
    AS_STORED,
    DEFAULT,
    default_quantization,
    known_quantization,
    note_on_default,
    require,
)
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
    """Refuse an output that is in use.

    Raises:
        InputError: it exists.
    """
    output = gguf_output(spec) if spec.format == "gguf" else spec.output
    check_output(output and str(output))


def gguf_output(spec: ExportSpec) -> Path | None:
    """The file to write where the user asked for one; None: in the run's folder.

    In an existing folder it gets a name of its own; a name without a suffix gets `.gguf`.
    """
    if spec.output is None:
        return None
    output = Path(spec.output)
    if output.is_dir():
        return output / gguf_name(spec)
    return output if output.suffix else output.with_name(f"{output.name}.gguf")


def gguf_name(spec: ExportSpec) -> str:
    """Of a file that the user gave no name."""
    return f"{spec.label}-{spec.quantization}.gguf"


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


def note_on_quantization(spec: ExportSpec, named: str | None, store: RunStore) -> str | None:
    """What to tell a user who gave no quantization, unless the usual one is taken."""
    if named is not None or spec.quantization == DEFAULT:
        return None
    return note_on_default(spec.quantization, _keeps_bits(spec.model, store))


def _usual_quantization(model: ModelGroup, store: RunStore, imatrix: bool) -> str:
    return AS_STORED if _keeps_bits(model, store) else default_quantization(imatrix)


def _keeps_bits(model: ModelGroup, store: RunStore) -> bool:
    with suppress(BackpropagateError):  # of a model that cannot be read; the worker says so
        facts = model_facts(model, store.home / "models", ask_hub=False)
        return bool(facts and facts.config and is_mxfp4(facts.config))
    return False
