"""register_ollama: register a GGUF file with the local Ollama server, and verify that it answers."""

from __future__ import annotations

from functools import partial

import anyio.to_thread

from ..training.config.fields import (
    GgufFile,
    KeepTemplate,
    OllamaName,
    OllamaParameters,
    OllamaQuestion,
    OllamaSystem,
    Overwrite,
)
from ..training.errors import InputError
from ..training.requests.register import register_spec
from .context import ToolContext
from .follow import WaitSeconds, follow_or_raise
from .get_run import RunId
from .status import RunStatus, run_status


async def register_ollama(
    context: ToolContext,
    name: OllamaName,
    path: GgufFile | None = None,
    run_id: RunId | None = None,
    system: OllamaSystem | None = None,
    parameters: OllamaParameters | None = None,
    keep_template: KeepTemplate = False,
    overwrite: Overwrite = False,
    question: OllamaQuestion | None = None,
    wait_s: WaitSeconds = 50,
) -> RunStatus:
    """Register a GGUF file as a model of the local Ollama server, and verify that it answers.

    Give the path of a GGUF file, or the run_id of an export or of an exported training. The result shows the
    answer, and the trained model's own answer if the run recorded one. The registration continues after
    wait_s.
    """
    if (path is None) == (run_id is None):
        raise InputError("Give either path or run_id.", hint="An export returns both.")
    spec = await anyio.to_thread.run_sync(
        partial(
            register_spec,
            path or run_id or "",
            name,
            context.service.store,
            context.paths,
            system=system,
            parameters=parameters,
            keep_template=keep_template,
            overwrite=overwrite,
            question=question,
        )
    )
    submission = await context.service.submit(spec, find_equal=True)
    view = await follow_or_raise(context, submission, wait_s)
    note = f"Same request as run {view.run_id}; it was not repeated." if submission.existing else None
    return run_status(view, note=note)
