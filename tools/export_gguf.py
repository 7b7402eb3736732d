"""export_gguf: a trained model as one file that llama.cpp and Ollama run."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ..training.config.fields import ExportOutput, ImportanceMatrix, Quantization
from ..training.config.quantizations import note_on_default
from ..training.requests.export import export_spec
from .context import ToolContext
from .follow import WaitSeconds, follow_or_raise
from .status import RunStatus, run_status

ExportSource = Annotated[
    str,
    Field(
        min_length=1,
        max_length=4096,
        description="A training run's id; or the absolute path of an adapter or model folder; or a model.",
    ),
]


async def export_gguf(
    context: ToolContext,
    source: ExportSource,
    quantization: Quantization | None = None,
    imatrix: ImportanceMatrix = False,
    output: ExportOutput | None = None,
    wait_s: WaitSeconds = 50,
) -> RunStatus:
    """A base model with its adapter merged in, as one GGUF file at the chosen quantization.

    The file is read back and proven to be the trained model before it gets its name. Then
    `register_ollama` makes it answer in Ollama. Like `train`, the export goes on after wait_s.
    """
    spec = export_spec(
        source,
        context.service.store,
        context.paths,
        quantization=quantization,
        imatrix=imatrix,
        output=context.paths.resolve(output, "output", write=True) if output else None,
    )
    submission = await context.service.submit(spec, find_equal=True)
    view = await follow_or_raise(context, submission, wait_s)
    notes = [note_on_default(quantization, spec.quantization)]
    if submission.existing:
        notes.append("An equal export had been started already.")
    return run_status(view, note=" ".join(filter(None, notes)) or None)
