"""export_gguf: write a trained model as one GGUF file for llama.cpp and Ollama."""

from __future__ import annotations

from typing import Annotated

import anyio.to_thread
from pydantic import Field

from ..training.config.fields import AllowOtherBase, ExportOutput, ImportanceMatrix, Quantization
from ..training.config.specs import ExportSpec
from ..training.requests.export import export_spec, note_on_quantization
from .context import ToolContext
from .follow import Confirmed, WaitSeconds, follow_or_raise, submitted
from .status import RunStatus, run_status

ExportSource = Annotated[
    str,
    Field(
        min_length=1,
        max_length=4096,
        description="Id of a training run, absolute path of an adapter or model folder, or model name.",
    ),
]


async def export_gguf(
    context: ToolContext,
    source: ExportSource,
    quantization: Quantization | None = None,
    imatrix: ImportanceMatrix = False,
    output: ExportOutput | None = None,
    allow_other_base: AllowOtherBase = False,
    confirmed: Confirmed = False,
    wait_s: WaitSeconds = 50,
) -> RunStatus:
    """Merge an adapter into its base model and write one GGUF file at the chosen quantization.

    The file is read back and verified against the trained model before it gets its name. `register_ollama`
    registers it with Ollama. Like `train`, the export continues after wait_s.
    """

    def make() -> tuple[ExportSpec, str | None]:
        spec = export_spec(
            source,
            context.service.store,
            context.paths,
            quantization=quantization,
            imatrix=imatrix,
            allow_other_base=allow_other_base,
            output=context.paths.resolve(output, "output", write=True) if output else None,
        )
        return spec, note_on_quantization(spec, quantization, context.service.store)

    spec, note = await anyio.to_thread.run_sync(make)
    submission = await submitted(context, spec, confirmed=confirmed)
    view = await follow_or_raise(context, submission, wait_s)
    notes = [note]
    if submission.existing:
        notes.append(f"Same request as run {view.run_id}; no new export was started.")
    return run_status(view, note=" ".join(filter(None, notes)) or None)
