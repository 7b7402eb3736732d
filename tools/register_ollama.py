"""register_ollama: make a GGUF a model of the local Ollama server, and prove that it answers."""

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
    """Make a GGUF file a model of the local Ollama server, and prove that it answers.

    Give the path of a GGUF, or the run_id of an export or of a training that has been exported. The answer
    stands beside the trained model's own where the run wrote one down. Returns within wait_s; the
    registration goes on by itself.
    """
    if (path is None) == (run_id is None):
        raise InputError("Give either path or run_id.", hint="export_gguf tells both.")
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
    note = "The same request had been made already; it was not made again." if submission.existing else None
    return run_status(view, note=note)
