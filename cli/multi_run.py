"""`backprop multi-run`."""

from __future__ import annotations

from typing import Any

import click

from ..training.config.specs import MultiGroup, MultiRunSpec
from ..training.errors import InputError
from ..training.next_step import then
from ..training.requests.argument_paths import with_resolved_paths
from ..training.requests.multi_run import multi_run_spec_of
from ..training.requests.settings import alias_notes
from ..training.requests.train import require_alone, require_own
from ..training.requests.validated import validated
from ..training.service import Submission, TrainingService
from .options import given, group_options, setting_options
from .train import run_and_print
from .wrapped import say


@click.command("multi-run")
@group_options(MultiGroup, {"num_runs": ["--runs", "--num-runs"]})
@click.option(
    "--task",
    "tasks",
    multiple=True,
    metavar="NAME=FILE",
    help="Instead of --data: a dataset of its own for each run, in order. May be repeated.",
)
@setting_options()
@click.option("-o", "--output", metavar="FOLDER", help="Also copy the finished adapter to this folder.")
@click.option("--resume", metavar="ID", help="Resume this multi-run where it was stopped.")
@click.option(
    "--continue-from",
    metavar="ID",
    help="Add runs to this multi-run or training, in a new run with its model and LoRA settings.",
)
@click.option("--detach", is_flag=True, help="Start the run and exit; it continues in the background.")
@click.option("--json", "as_json", is_flag=True, help="Print the run as JSON.")
@click.pass_context
def multi_run(
    ctx: click.Context,
    tasks: tuple[str, ...],
    resume: str | None,
    continue_from: str | None,
    detach: bool,
    as_json: bool,
    **values: Any,
) -> None:
    """Train in runs, one after the other, merged into one adapter that remembers the earlier runs.

    --steps and --samples are those of each run. Ctrl-C cancels and keeps the merge of the runs that are done.
    """
    service = TrainingService()
    arguments = given(values)

    async def submit() -> Submission:
        if resume is None:
            submission = await service.submit(_spec(service, arguments, tasks, continue_from))
            _note_on_resuming(submission.resumable)
            return submission
        require_alone([*(["task"] if tasks else []), *(["continue_from"] if continue_from else [])])
        before = await service.get(resume)
        if before.kind != "multi_run":
            raise InputError(
                f"Run {before.run_id} is no multi-run.", next=then("resume", run_id=before.run_id)
            )
        return await _resumed(service, before.run_id, arguments)

    run_and_print(ctx, service, submit, detach=detach, as_json=as_json)


async def _resumed(service: TrainingService, run_id: str, arguments: dict[str, Any]) -> Submission:
    """The run that is resumed; what is given besides may only repeat what it has."""
    own = service.store.find(run_id).request_now()
    assert isinstance(own, MultiRunSpec)
    given = with_resolved_paths(_with_samples_per_run(arguments), service.settings)
    dataset = given.pop("dataset", None)
    multi = {name: given.pop(name) for name in MultiGroup.model_fields if given.get(name) is not None}
    require_own(own, given, service.settings)
    asked = validated(MultiRunSpec, {"data": {"source": "any"}, "multi": multi}).multi
    require_alone(name for name in multi if getattr(asked, name) != getattr(own.multi, name))
    return Submission((await service.resume(run_id, dataset=dataset)).run_id, existing=False)


def _note_on_resuming(stopped: str | None) -> None:
    if stopped:
        say(
            f"A multi-run with the same model and data was stopped before. This is a new one; to resume the "
            f"stopped one: backprop multi-run --resume {stopped}",
            err=True,
        )


def _spec(
    service: TrainingService,
    arguments: dict[str, Any],
    tasks: tuple[str, ...],
    continue_from: str | None,
) -> MultiRunSpec:
    """The spec of the arguments; of a multi-run, `--samples` are those of each run."""
    arguments = _with_samples_per_run(arguments)
    multi = {name: arguments.pop(name, None) for name in MultiGroup.model_fields}
    named = [_task(text) for text in tasks]
    spec = multi_run_spec_of(arguments, multi, named, service.settings, service.store, continue_from)
    for note in alias_notes(arguments):
        say(note, err=True)
    return spec


def _with_samples_per_run(arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments with --samples under its name here."""
    if "samples" not in arguments:
        return dict(arguments)
    if arguments.get("samples_per_run") is not None:
        raise InputError("samples is given twice: samples_per_run is the same setting.")
    return {**arguments, "samples_per_run": arguments["samples"], "samples": None}


def _task(text: str) -> dict[str, str] | str:
    name, sign, dataset = text.partition("=")
    if not sign:
        return text
    if not name or not dataset:
        raise InputError(f"task: {text!r} is not NAME=FILE.", hint="Write e.g. --task law=law.jsonl.")
    return {"name": name, "dataset": dataset}
