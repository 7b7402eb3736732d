"""generate: ask a trained model, and its base beside it."""

from __future__ import annotations

from typing import Any

import anyio.to_thread
from pydantic import Field, PrivateAttr

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
from ..training.runs.view import RunView
from ..training.untrusted import one_line, shortened
from .context import ToolContext, ToolResult
from .export_gguf import ExportSource
from .follow import WaitSeconds, follow_or_raise
from .status import QUESTION_LENGTH, ROOM, run_status


class Generated(ToolResult):
    """A run that asks a model: the part of its status that matters here."""

    run_id: str
    status: str
    summary: str | None = None
    untrusted_answers: list[dict[str, Any]] = Field(default_factory=list[dict[str, Any]])
    warnings: list[str] = Field(default_factory=list[str])
    note: str | None = None
    next: str
    _text: str = PrivateAttr("")

    @classmethod
    def of(cls, view: RunView, note: str | None) -> Generated:
        status = run_status(view, note)
        shown = status.model_dump(exclude_none=True, include=set(cls.model_fields))
        found = cls.model_validate({**shown, "untrusted_answers": _answers(view)})
        found._text = status.text()
        return found

    def text(self) -> str:
        return self._text


def _answers(view: RunView) -> list[dict[str, Any]]:
    """The answers with their line breaks, as long as there is room for all of them."""
    length = ROOM // max(1, sum(2 if answer.before and answer.after else 1 for answer in view.answers))
    return [
        {
            "question": one_line(answer.question, QUESTION_LENGTH),
            **{
                name: shortened(text, length)
                for name, text in (("before", answer.before), ("after", answer.after))
                if text is not None
            },
        }
        for answer in view.answers
    ]


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
) -> Generated:
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
    return Generated.of(view, same)
