"""`backprop train`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import click

from ..training.config.specs import TrainingSpec, TrainSpec
from ..training.errors import InputError
from ..training.files.output_folder import check_output
from ..training.requests.argument_paths import with_resolved_paths
from ..training.requests.settings import alias_notes
from ..training.requests.train import require_own, train_spec
from ..training.runs.view import RunView
from ..training.service import Submission, TrainingService
from .follow import follow, follow_or_cancel, run_exit_code
from .options import given, setting_options
from .show import print_json, print_run
from .wrapped import say


@click.command("train")
@setting_options()
@click.option("-o", "--output", metavar="FOLDER", help="Also copy the finished adapter to this folder.")
@click.option(
    "--resume",
    metavar="ID",
    help="Resume this run; with more --steps than planned, start a new run from its adapter.",
)
@click.option("--detach", is_flag=True, help="Start the run and exit; it continues in the background.")
@click.option("--json", "as_json", is_flag=True, help="Print the run as JSON.")
@click.pass_context
def train(ctx: click.Context, resume: str | None, detach: bool, as_json: bool, **values: Any) -> None:
    """Fine-tune a model on a dataset with LoRA. Ctrl-C cancels the run and saves its adapter."""
    service = TrainingService()
    arguments = given(values)

    async def submit() -> Submission:
        if resume is None:
            return await service.submit(spec_of(service, arguments))
        return await resumed(service, resume, arguments)

    run_and_print(ctx, service, submit, detach=detach, as_json=as_json)


async def resumed(service: TrainingService, run_id: str, arguments: dict[str, Any]) -> Submission:
    """The run that is resumed; what is given besides may only repeat what it has, or give more steps."""
    given = with_resolved_paths(arguments, service.settings)
    dataset, steps = given.pop("dataset", None), given.pop("steps", None)
    gpus = given.pop("gpus", None)
    wanted = None if steps is None else _whole(steps)
    own = service.store.find(run_id).request_now()
    if isinstance(own, TrainingSpec):
        require_own(own, given, service.settings)
    return await service.resume_or_extend(run_id, wanted, dataset, gpus)


def _whole(steps: str) -> int:
    if not steps.isdecimal() or int(steps) < 1:
        raise InputError(f"steps: {steps!r} is no number of steps.", hint="Give a whole number above 0.")
    return int(steps)


def spec_of(service: TrainingService, arguments: dict[str, Any], *, needs_dataset: bool = True) -> TrainSpec:
    """The spec of the arguments, with permitted absolute paths."""
    resolved = with_resolved_paths(arguments, service.settings)
    spec = train_spec(service.settings, arguments=resolved, needs_dataset=needs_dataset)
    for note in alias_notes(arguments):
        say(note, err=True)
    check_output(spec.output)
    return spec


def run_and_print(
    ctx: click.Context,
    service: TrainingService,
    submit: Callable[[], Awaitable[Submission]],
    print_view: Callable[[RunView], None] = print_run,
    *,
    detach: bool = False,
    as_json: bool = False,
) -> None:
    """Start a run, show it until it has ended unless detached, print it, and exit with its exit code."""
    view = anyio.run(start_and_follow, service, submit, detach)
    (print_json if as_json else print_view)(view)
    ctx.exit(0 if detach else run_exit_code(view))


async def start_and_follow(
    service: TrainingService, submit: Callable[[], Awaitable[Submission]], detach: bool = False
) -> RunView:
    """Submit a run and, unless detached, show it until it has ended."""
    await service.recover()
    submission = await submit()
    say(f"run_started run_id={submission.run_id}", err=True)
    if submission.existing:
        existing = await service.get(submission.run_id)
        say(f"Same request as run {existing.run_id}, which is already {existing.status.value}.", err=True)
    if detach:
        return await service.get(submission.run_id)
    if submission.existing:
        return await follow(service, submission.run_id)
    return await follow_or_cancel(service, submission.run_id)
