"""evaluate: compare two models on the same rows."""

from __future__ import annotations

from typing import Annotated, Any

import anyio.to_thread
from pydantic import Field, PrivateAttr

from ..training.config.fields import DatasetSource, Metrics, Pattern, Samples
from ..training.config.results import EvaluateResult
from ..training.config.specs import EvaluateSpec
from ..training.requests.evaluate import evaluate_spec
from ..training.requests.settings import alias_notes
from ..training.runs.view import RunView
from .context import ToolContext, ToolResult
from .export_gguf import ExportSource
from .follow import WaitSeconds, follow_or_raise
from .status import run_status

Settings = Annotated[
    dict[str, Any] | None,
    Field(
        description='Data settings as in train, e.g. {"columns": {"prompt": "Frage"}}; also max_new_tokens, '
        "load_in_4bit, allow_other_base, device, seed."
    ),
]
OWN = ("max_new_tokens", "load_in_4bit", "allow_other_base", "device", "seed")


class Evaluated(ToolResult):
    """A run that compares two models: the part of its status that matters here."""

    run_id: str
    status: str
    verdict: str | None = None
    summary: str | None = None
    metrics: list[dict[str, Any]] = Field(default_factory=list[dict[str, Any]])
    tasks: list[dict[str, Any]] = Field(default_factory=list[dict[str, Any]])
    untrusted_flips: list[dict[str, Any]] = Field(default_factory=list[dict[str, Any]])
    warnings: list[str] = Field(default_factory=list[str])
    note: str | None = None
    next: str
    _text: str = PrivateAttr("")

    @classmethod
    def of(cls, view: RunView, note: str | None) -> Evaluated:
        status = run_status(view, note)
        names = {"run_id", "status", "summary", "warnings", "note", "next"}
        shown = status.model_dump(exclude_none=True, include=names)
        if isinstance(view.result, EvaluateResult):
            result = view.result.model_dump(mode="json", exclude_none=True)
            shown |= {
                "verdict": result["verdict"],
                "metrics": result["scores"],
                "tasks": result["tasks"],
                "untrusted_flips": result["flips"],
            }
        found = cls.model_validate(shown)
        found._text = status.text()
        return found

    def text(self) -> str:
        return self._text


async def evaluate(
    context: ToolContext,
    source: ExportSource,
    dataset: DatasetSource | None = None,
    against: Annotated[
        str, Field(min_length=1, description="As source; `base` is the source without its adapter.")
    ] = "base",
    metrics: Metrics | None = None,
    pattern: Pattern | None = None,
    samples: Samples | None = None,
    settings: Settings = None,
    wait_s: WaitSeconds = 50,
) -> Evaluated:
    """Compare two models on the same rows: better, worse or can't tell, with intervals and rows that changed.

    Without a dataset, on the rows that the run held out.
    """
    given = {"samples": samples, **(settings or {})}
    own = {name: given.pop(name) for name in OWN if name in given}

    def make() -> EvaluateSpec:
        return evaluate_spec(
            source,
            context.service.store,
            context.paths,
            context.service.settings,
            dataset=dataset,
            against=against,
            settings={name: value for name, value in given.items() if value is not None},
            metrics=metrics,
            pattern=pattern,
            **own,
        )

    spec = await anyio.to_thread.run_sync(make)
    submission = await context.service.submit(spec, find_equal=True)
    view = await follow_or_raise(context, submission, wait_s)
    notes = alias_notes(settings or {})
    if submission.existing:
        notes.insert(0, f"Same request as run {view.run_id}; it was not measured again.")
    return Evaluated.of(view, " ".join(notes) or None)
