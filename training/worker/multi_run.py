"""Executes a multi-run: trainings one after the other on a base that is loaded once, merged into one adapter.

Every run is planned before the first one starts. A later attempt uses these plans, the ledger, and the
checkpoints of the run that was not finished.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config.specs import DataGroup, MultiRunSpec
from ..data.prepare import Prepared
from ..data.tokens.kept_rows import TASKS
from ..errors import PartialSuccessError, TrainingAbortedError
from ..models.base_identity import BaseIdentity, identified
from ..runs.recorder import as_record
from ..untrusted import quoted
from .context import RunContext, WaitForDevice
from .examples import (
    check_data,
    examples,
    examples_again,
    tokenizer_of,
    warn_about_data,
    warn_about_evaluation,
    warn_about_memory,
    warn_about_the_end,
)
from .fitting import require_room
from .multi_run_parent import take_over, taken_over
from .multi_run_tasks import (
    FirstRun,
    ReadyRuns,
    TaskRows,
    kept_rows,
    request_of_run,
    require_rows,
    rows_of_runs,
)
from .track import track
from .trained_base import require_trained_base, trained_revision

if TYPE_CHECKING:
    from ..engine.plan import Plan
    from .multi_run_loop import MultiRunLoop


def run(context: RunContext, wait_for_device: WaitForDevice) -> None:
    """Execute the multi-run, and record its result.

    Raises:
        BackpropagateError: no run succeeded, or the result cannot be saved; any other exception is a bug.
        TrainingAbortedError: it was cancelled before the first merge.
    """
    spec = context.run.request_now()
    assert spec.kind == "multi_run"
    planned = context.run.plan()
    if planned is None:
        require_rows(spec, [check_data(context, data) for data in spec.datasets])
        require_room(context, spec)
    wait_for_device()
    base = request_of_run(spec, spec.data)
    folder = context.model_folder(revision=trained_revision(context.run, base))
    require_trained_base(context, base, folder)
    if planned is None:
        with identified(folder, context.should_stop) as identity:
            ready = _prepare(context, spec, folder, identity)
    else:
        ready = _again(context, spec, folder, planned)
    _run_all(context, ready)


def _run_all(context: RunContext, ready: ReadyRuns) -> None:
    from .multi_run_result import save_result

    loop = _opened(context, ready)
    try:
        completed = loop.run()
    except TrainingAbortedError:
        completed = False
    except Exception as error:
        if not loop.ledger.kept:
            raise
        _partial(context, ready, loop, error)
        return
    if not loop.ledger.kept:
        raise TrainingAbortedError("Cancelled before the first run was merged.")
    result = save_result(context, ready, loop, "completed" if completed else "cancelled")
    if completed:
        context.recorder.completed(result)
    else:
        context.recorder.cancelled(result)


def _partial(context: RunContext, ready: ReadyRuns, loop: MultiRunLoop, error: Exception) -> None:
    """Deliver the merge of the runs before the one that failed, and record the failure."""
    from .multi_run_result import save_result

    done, count = len(loop.ledger.runs), len(ready.tasks)
    record = as_record(error, context.run.log_path)
    context.recorder.log.exception("run_failed")
    partial = PartialSuccessError(
        f"Run {done + 1} of {count} failed: [{record.code}] {record.message} "
        f"The adapter of the {done} before it is saved.",
        hint=record.hint,
        retryable=record.retryable,
        untrusted=record.untrusted_details,
    )
    context.recorder.failed(partial, save_result(context, ready, loop, "cancelled"))


def _opened(context: RunContext, ready: ReadyRuns) -> MultiRunLoop:
    from ..engine.loaded_model import StepModel
    from ..engine.open_model import open_model
    from .multi_run_loop import MultiRunLoop

    context.stop_if_asked()
    track(context)
    model = open_model(ready.plans[0], context.report)
    context.require_permitted()
    assert isinstance(model, StepModel)  # the request allows no other engine
    return MultiRunLoop(context, ready, model)


# --- Data and plans. ---
def _prepare(
    context: RunContext, spec: MultiRunSpec, model: Path, identity: Callable[[], BaseIdentity]
) -> ReadyRuns:
    tokenizer, threads = tokenizer_of(context, request_of_run(spec, spec.data), model)
    first = take_over(context, spec, model)
    prepared: list[Prepared] = []
    for data in spec.datasets:
        prepared.append(examples(context, request_of_run(spec, data), tokenizer, model))
        warn_about_data(context, prepared[-1])
    warn_about_evaluation(context, spec.evaluation, sum(len(data.held_out) for data in prepared))
    warn_about_the_end(context, tokenizer, model)
    tasks = rows_of_runs(spec, prepared, taken_over(context, spec))
    for number, task in enumerate(tasks[spec.earlier :], spec.earlier + 1):
        kept_rows(task).write(context.run.path / TASKS, number)
    _warn_about_scores(context, tasks)
    plans, reasons = _plans(context, spec, model, tasks[spec.earlier :], threads, _lengths(prepared, tasks))
    warn_about_memory(context, spec.training, plans[0])
    context.recorder.phase("loading", "reading the base model's weights")
    context.run.write_provenance(_provenance(spec, identity(), prepared, plans[0]))
    runs = [plan.record() for plan in plans]
    context.run.write_plan({**runs[0], "reasons": reasons, "runs": runs, "first": first})
    return ReadyRuns(spec, tokenizer, tasks, plans, first)


def _warn_about_scores(context: RunContext, tasks: Sequence[TaskRows]) -> None:
    named = [quoted(task.name) for task in tasks if task.scored_on == "training"]
    if named:
        which = "any task" if len(named) == len(tasks) else ", ".join(named)
        context.recorder.warn(
            f"No rows are held out for {which}: the ledger's scores are of training rows, and show what is "
            "remembered, not what was understood."
        )


def _lengths(prepared: Sequence[Prepared], tasks: Sequence[TaskRows]) -> list[int]:
    """Of all examples that any run trains on: the model is opened once for all."""
    fresh = [length for data in prepared for length in data.train.lengths().tokens.tolist()]
    return fresh + [len(example.input_ids) for task in tasks for example in task.replayed]


def _plans(
    context: RunContext,
    spec: MultiRunSpec,
    model: Path,
    tasks: Sequence[TaskRows],
    threads: int,
    lengths: Sequence[int],
) -> tuple[list[Plan], dict[str, str]]:
    """The plan of each run, and the reasons of the first one's choices.

    Args:
        lengths: in tokens, of the examples of all runs.
    """
    from ..engine.planner import choose_plan, this_machine
    from .save_adapter import base_model_name

    machine = this_machine(threads)
    plans: list[Plan] = []
    reasons: dict[str, str] = {}
    # Without a run, the model is still opened by a plan, to be judged and saved.
    runs = list(zip(tasks, _data_of_runs(spec), strict=True)) or [(None, spec.data)]
    for number, (task, data) in enumerate(runs, spec.earlier):
        request = request_of_run(spec, data)
        plan, why = choose_plan(
            request,
            machine,
            examples=len(task.train) if task else 1,
            held_out=len(task.held_out) if task else 0,
            model=model,
            adapter=context.run.path / ".adapter-of-the-engine",
            base_model_name=base_model_name(request, model),
            continue_from=None,
            lengths=lengths or None,
        )
        rate = plan.learning_rate * spec.multi.learning_rate_decay**number
        plan = replace(plan, training=plan.training.model_copy(update={"learning_rate": rate}))
        # A run without a checkpoint starts from its first step.
        key = task.prepared.key if task and task.prepared else ""
        plans.append(replace(plan, tokens_key=key, resume=True))
        reasons = reasons or why
    return plans, reasons


def _data_of_runs(spec: MultiRunSpec) -> list[DataGroup]:
    return spec.datasets if spec.tasks else spec.datasets * spec.num_runs


def _provenance(
    spec: MultiRunSpec, base: BaseIdentity, prepared: Sequence[Prepared], plan: Plan
) -> dict[str, Any]:
    from .provenance import dataset_record, provenance

    data = prepared[0] if prepared else None
    record = provenance(request_of_run(spec, plan.data), plan, data, base)
    if not spec.tasks:
        return record
    records = [
        {"name": task.name, **dataset_record(task.dataset, data)}
        for task, data in zip(spec.tasks, prepared, strict=True)
    ]
    return {**record, "tasks": records}


def _again(context: RunContext, spec: MultiRunSpec, model: Path, planned: dict[str, Any]) -> ReadyRuns:
    """The examples and the plans of the first attempt.

    Raises:
        DatasetError: a dataset has changed, and its tokens are no longer in the cache.
    """
    from ..engine.plan import Plan

    tokenizer, _ = tokenizer_of(context, request_of_run(spec, spec.data), model)
    plans = [replace(Plan.from_record(record), model=model) for record in planned["runs"]]
    keys = [plan.tokens_key for plan in plans[: len(spec.datasets)]]
    prepared = [
        examples_again(context, request_of_run(spec, data), tokenizer, model, key)
        for data, key in zip(spec.datasets, keys, strict=True)
    ]
    first = planned.get("first")
    tasks = rows_of_runs(spec, prepared, taken_over(context, spec))
    return ReadyRuns(spec, tokenizer, tasks, plans, FirstRun(*first) if first else None)
