"""Executes an export run: from its spec to a verified file or folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from ..config.quantizations import require
from ..config.results import ExportResult
from ..config.specs import ExportSpec
from ..files.output_folder import check_output
from ..hardware.cpu import training_threads
from ..requests.export import gguf_name, gguf_output
from ..runs.folder import RunFolder
from ..untrusted import quoted
from .context import RunContext, WaitForDevice, use_threads
from .export_folder import export_folder
from .trained_base import require_base_of_adapter

if TYPE_CHECKING:
    from ..export.gguf.export import GgufExport, GgufRequest, UnverifiedGguf
    from ..export.held_out_rows import RunRows

IMATRIX_ROWS = 64
NO_TEMPLATE = "The file has no chat template, since the model has none; a registration with Ollama needs one."


def run(context: RunContext, wait_for_device: WaitForDevice) -> None:
    """Execute the export; incomplete files are always removed.

    Raises:
        ExportError: it cannot be exported, or the written file differs from the model.
        TrainingAbortedError: it was cancelled.
    """
    spec = context.run.spec()
    assert isinstance(spec, ExportSpec)
    if spec.adapter:
        context.permit_links(Path(spec.adapter), "source")
    if spec.format == "gguf":
        _export_gguf(context, spec, wait_for_device)
    else:
        export_folder(context, spec, wait_for_device)


def _export_gguf(context: RunContext, spec: ExportSpec, wait_for_device: WaitForDevice) -> None:
    require(spec.quantization, spec.imatrix)
    target = gguf_output(spec) or context.run.path / "export" / gguf_name(spec)
    check_output(spec.output and str(target))
    wait_for_device()
    _prepare(context, spec, target)
    base = context.model_folder()
    require_base_of_adapter(context, spec, base)
    use_threads(None)
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # our own threads process the blocks
    from ..engine.packed.gguf_decoder import decoder_of_gguf
    from ..export.gguf.export import export_gguf
    from ..export.gguf.model_config import model_config, runtime_warnings
    from ..export.verify.verify import FileVerifier

    rows = _rows(context, spec)
    request = _request(context, spec, base, target, rows)
    verifier = FileVerifier(request, rows, decoder_of_gguf, context.report, context.should_stop)

    def verify(written: UnverifiedGguf) -> None:
        verifier(written)
        context.require_permitted()

    exported = export_gguf(request, verify, context.report, context.should_stop)
    if exported.tokenizer.chat_template is None:
        context.recorder.warn(NO_TEMPLATE)
    for warning in runtime_warnings(model_config(base)):
        context.recorder.warn(warning)
    context.recorder.completed(_result(spec, exported, verifier.sentences))


def _prepare(context: RunContext, spec: ExportSpec, target: Path) -> None:
    """Look at the output again, after the wait."""
    if spec.output is None:
        target.unlink(missing_ok=True)  # of an earlier attempt
    else:
        check_output(str(target))
        context.permit_output(target)
    target.parent.mkdir(parents=True, exist_ok=True)


def _request(
    context: RunContext, spec: ExportSpec, base: Path, target: Path, rows: RunRows | None
) -> GgufRequest:
    from ..export.gguf.export import GgufRequest, part_files
    from ..export.gguf.imatrix import measure_imatrix

    adapter = Path(spec.adapter) if spec.adapter else None
    part = target.with_name(f".{context.run.run_id}.part")  # the target's name may be as long as names can be
    context.run.write_parts(part_files(part))
    return GgufRequest(
        base=base,
        adapter=adapter,
        name=spec.label,
        quantization=spec.quantization,
        target=target,
        part=part,
        imatrix=measure_imatrix(base, adapter, rows, context.report, context.should_stop)
        if spec.imatrix
        else {},
        threads=training_threads(),
    )


def _rows(context: RunContext, spec: ExportSpec) -> RunRows | None:
    if spec.run is None:
        return None
    from ..export.held_out_rows import rows_of_run

    return rows_of_run(RunFolder(context.run.path.parent / spec.run), context.home, IMATRIX_ROWS)


def _result(spec: ExportSpec, exported: GgufExport, proof: list[str]) -> ExportResult:
    size = f"{exported.bytes / 1e9:.2f} GB" if exported.bytes >= 1e8 else f"{exported.bytes / 1e6:.1f} MB"
    name = quoted(exported.path.name)
    named = "" if _as_asked(spec, exported.path) else f" Named {name}, since `output` had no suffix."
    return ExportResult(
        path=str(exported.path),
        bytes=exported.bytes,
        quantization=spec.quantization,
        proof=proof,
        stop_tokens=list(exported.tokenizer.stop_tokens),
        summary=f"{spec.quantization} GGUF of {size}.{named} {' '.join(proof)}",
    )


def _as_asked(spec: ExportSpec, written: Path) -> bool:
    return spec.output is None or Path(spec.output) in (written, written.parent)
