"""generate: ask a trained model, and its base beside it."""

from __future__ import annotations

import anyio.to_thread

from ..training.config.fields import (
    AnswerSystem,
    AnswerTokens,
    CompareBase,
    LoadIn4bit,
    Prompts,
    Seed,
    Temperature,
)
from ..training.config.specs import GenerateSpec
from ..training.requests.generate import generate_spec
from .context import ToolContext
from .export_gguf import ExportSource
from .follow import WaitSeconds, follow_or_raise
from .status import RunStatus, run_status


async def generate(
    context: ToolContext,
    source: ExportSource,
    prompts: Prompts,
    compare_base: CompareBase = True,
    max_new_tokens: AnswerTokens = 256,
    temperature: Temperature = 0.0,
    seed: Seed = 42,
    system: AnswerSystem | None = None,
    load_in_4bit: LoadIn4bit | None = None,
    wait_s: WaitSeconds = 50,
) -> RunStatus:
    """Ask a model: `after` answers with its adapter, `before` without."""

    def make() -> GenerateSpec:
        return generate_spec(
            source,
            prompts,
            context.service.store,
            context.paths,
            compare_base=compare_base,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            seed=seed,
            system=system,
            load_in_4bit=load_in_4bit,
        )

    spec = await anyio.to_thread.run_sync(make)
    submission = await context.service.submit(spec, find_equal=True)
    view = await follow_or_raise(context, submission, wait_s)
    same = f"Same request as run {view.run_id}; it was not asked again." if submission.existing else None
    return run_status(view, note=same)
