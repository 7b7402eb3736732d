"""multi_run: trainings one after the other, merged into one adapter that remembers the earlier ones."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, cast

import anyio.to_thread
from pydantic import BeforeValidator, Field

from ..training.config.fields import (
    DatasetSource,
    MergeMode,
    MergeScale,
    ModelName,
    NumRuns,
    OutputFolder,
    SamplesPerRun,
    StepsPerRun,
)
from ..training.config.specs import MultiGroup, MultiRunSpec, Task
from ..training.errors import InputError
from ..training.files.output_folder import check_output
from ..training.requests.multi_run import multi_run_spec, named_tasks, resolved_tasks
from ..training.requests.multi_run_parent import parent_of
from ..training.requests.settings import alias_notes
from .context import ToolContext, resolved_dataset, resolved_model
from .follow import Confirmed, WaitSeconds, follow_or_raise, submission_note, submitted
from .status import RunStatus, run_status


def _as_list(given: object) -> object:
    """Tasks that are given as names and datasets, as the list that is promised."""
    return named_tasks(cast("Mapping[str, object]", given)) if isinstance(given, Mapping) else given


async def multi_run(
    context: ToolContext,
    dataset: DatasetSource | None = None,
    tasks: Annotated[
        list[Task] | None,
        BeforeValidator(_as_list),
        Field(description="Instead of dataset: datasets, one run each, in order."),
    ] = None,
    model: ModelName | None = None,
    num_runs: NumRuns | None = None,
    steps_per_run: StepsPerRun | None = None,
    samples_per_run: SamplesPerRun | None = None,
    merge_mode: MergeMode | None = None,
    merge_scale: MergeScale | None = None,
    continue_from: Annotated[
        str | None,
        Field(description="Add runs to this multi-run or training: its run id. Model and LoRA as there."),
    ] = None,
    output: OutputFolder | None = None,
    settings: Annotated[
        dict[str, Any] | None,
        Field(
            description="As in train, for every run. Also learning_rate_decay; replay, share of old rows; "
            "max_forgetting, rise of a task's loss to stop at; rows_per_task; answers_per_task; rollback_to, "
            "with continue_from: go on from the merge after that run, or only deliver it."
        ),
    ] = None,
    request_key: Annotated[
        str | None, Field(min_length=1, max_length=200, description="As in train.")
    ] = None,
    new_run: Annotated[bool, Field(description="As in train.")] = False,
    confirmed: Confirmed = False,
    wait_s: WaitSeconds = 50,
) -> RunStatus:
    """Train on parts of a dataset, or on several datasets in turn, merged into one adapter.

    The result has each task's loss before, after its run and at the end.
    """
    multi = {
        "num_runs": num_runs,
        "steps_per_run": steps_per_run,
        "samples_per_run": samples_per_run,
        "merge_mode": merge_mode,
        "merge_scale": merge_scale,
    }
    own, others = _parted(settings or {}, multi)
    arguments = {"dataset": dataset, "model": model, "output": output}
    make = partial(_spec, context, others, arguments, multi | own, tasks or [], continue_from)
    spec = await anyio.to_thread.run_sync(make)
    submission = await submitted(context, spec, request_key, new_run=new_run, confirmed=confirmed)
    view = await follow_or_raise(context, submission, wait_s)
    notes = [submission_note(submission, request_key), *alias_notes(others)]
    return run_status(view, note=" ".join(filter(None, notes)) or None)


def _parted(settings: dict[str, Any], multi: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The settings of the multi-run, and those of its runs.

    Raises:
        InputError: one is also given as an argument.
    """
    own = {name: value for name, value in settings.items() if name in MultiGroup.model_fields}
    twice = [name for name in own if multi.get(name) is not None]
    if twice:
        raise InputError(f"{twice[0]} is given twice: as an argument and in settings.", hint="Give it once.")
    return own, {name: value for name, value in settings.items() if name not in own}


def _spec(
    context: ToolContext,
    settings: dict[str, Any],
    arguments: dict[str, Any],
    multi: dict[str, Any],
    tasks: list[Task],
    continue_from: str | None,
) -> MultiRunSpec:
    dataset, output, model = arguments["dataset"], arguments["output"], arguments["model"]
    parent = parent_of(continue_from, context.service.store) if continue_from else None
    resolved = {
        "dataset": resolved_dataset(context, dataset) if dataset else None,
        "model": resolved_model(context, model) if model or parent is None else None,
        "output": context.paths.resolve(output, "output", write=True) if output else None,
    }
    spec = multi_run_spec(
        context.service.settings,
        settings=settings,
        arguments=resolved,
        multi=multi,
        tasks=resolved_tasks([task.model_dump() for task in tasks], context.paths),
        roots=context.paths.recorded(),
        parent=parent,
    )
    check_output(spec.output)
    return spec
