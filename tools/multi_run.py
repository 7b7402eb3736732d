"""multi_run: trainings one after the other, merged into one adapter that remembers the earlier ones."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

import anyio.to_thread
from pydantic import Field

from ..training.config.fields import (
    DatasetSource,
    LearningRateDecay,
    MaxForgetting,
    MergeMode,
    MergeScale,
    ModelName,
    NumRuns,
    OutputFolder,
    Replay,
    SamplesPerRun,
    StepsPerRun,
)
from ..training.config.specs import MultiRunSpec, Task
from ..training.files.output_folder import check_output
from ..training.requests.multi_run import multi_run_spec, resolved_tasks
from ..training.requests.settings import alias_notes
from .context import ToolContext, resolved_dataset, resolved_model
from .follow import WaitSeconds, follow_or_raise, submission_note
from .status import RunStatus, run_status


async def multi_run(
    context: ToolContext,
    dataset: DatasetSource | None = None,
    tasks: Annotated[
        list[Task] | None,
        Field(description="Instead of dataset: named datasets, learnt one after the other in this order."),
    ] = None,
    model: ModelName | None = None,
    num_runs: NumRuns | None = None,
    steps_per_run: StepsPerRun | None = None,
    samples_per_run: SamplesPerRun | None = None,
    merge_mode: MergeMode | None = None,
    merge_scale: MergeScale | None = None,
    learning_rate_decay: LearningRateDecay | None = None,
    replay: Replay | None = None,
    max_forgetting: MaxForgetting | None = None,
    output: OutputFolder | None = None,
    settings: Annotated[
        dict[str, Any] | None,
        Field(description="Settings of every run, by name, as in train; also rows_per_task."),
    ] = None,
    request_key: Annotated[
        str | None, Field(min_length=1, max_length=200, description="As in train.")
    ] = None,
    new_run: Annotated[bool, Field(description="Start a new run even if an equal one exists.")] = False,
    wait_s: WaitSeconds = 50,
) -> RunStatus:
    """Train on parts of a dataset, or on several datasets, one after the other, and merge into one adapter.

    It shall learn each without losing the earlier ones: the result has each task's loss before, after its own
    run and at the end. resume_run resumes.
    """
    multi = {
        "num_runs": num_runs,
        "steps_per_run": steps_per_run,
        "samples_per_run": samples_per_run,
        "merge_mode": merge_mode,
        "merge_scale": merge_scale,
        "learning_rate_decay": learning_rate_decay,
        "replay": replay,
        "max_forgetting": max_forgetting,
        "rows_per_task": (settings or {}).get("rows_per_task"),
    }
    others = {name: value for name, value in (settings or {}).items() if name != "rows_per_task"}
    arguments = {"dataset": dataset, "model": model, "output": output}
    make = partial(_spec, context, others, arguments, multi, tasks or [])
    spec = await anyio.to_thread.run_sync(make)
    submission = await context.service.submit(spec, request_key=request_key, find_equal=not new_run)
    view = await follow_or_raise(context, submission, wait_s)
    notes = [submission_note(submission, request_key), *alias_notes(others)]
    return run_status(view, note=" ".join(filter(None, notes)) or None)


def _spec(
    context: ToolContext,
    settings: dict[str, Any],
    arguments: dict[str, Any],
    multi: dict[str, Any],
    tasks: list[Task],
) -> MultiRunSpec:
    dataset, output = arguments["dataset"], arguments["output"]
    resolved = {
        "dataset": resolved_dataset(context, dataset) if dataset else None,
        "model": resolved_model(context, arguments["model"]),
        "output": context.paths.resolve(output, "output", write=True) if output else None,
    }
    spec = multi_run_spec(
        context.service.settings,
        settings=settings,
        arguments=resolved,
        multi=multi,
        tasks=resolved_tasks([task.model_dump() for task in tasks], context.paths),
        roots=context.paths.recorded(),
    )
    check_output(spec.output)
    return spec
