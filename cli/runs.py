"""`backprop list-runs`, `show-run`, `cancel`, `prune`."""

from __future__ import annotations

import json
from typing import Any

import anyio
import click

from ..tools.status import shown_size
from ..training.errors import InputError, StateError
from ..training.files.paths import PathPolicy
from ..training.redact import scrub_all
from ..training.requests.dataset_source import resolved_source
from ..training.runs.folder import ENDED, RunFolder, Status
from ..training.runs.view import RunLine, RunView
from ..training.service import TrainingService
from .completion import complete_path, complete_run
from .follow import follow, follow_or_cancel, run_exit_code
from .options import given, named_options
from .run_table import run_table
from .show import print_json, print_run
from .wrapped import say, say_json

as_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.command("list-runs")
@click.option(
    "--status", type=click.Choice([status.value for status in Status]), help="Only runs with this status."
)
@click.option(
    "--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="Maximum number of runs."
)
@as_json_option
def list_runs(status: str | None, limit: int, as_json: bool) -> None:
    """List past, running and queued runs, newest first."""
    service = TrainingService()

    async def look() -> tuple[list[RunLine], list[str], list[RunView]]:
        await service.recover()
        lines, unreadable = await service.list(Status(status) if status else None, limit)
        return lines, unreadable, [await service.get(line.run_id) for line in lines] if as_json else []

    lines, unreadable, views = anyio.run(look)
    if as_json:
        records = (scrub_all(view.model_dump(mode="json")) for view in views)
        say_json("[" + ",\n".join(json.dumps(record, ensure_ascii=False) for record in records) + "]")
    for sentence in unreadable:
        say(sentence, err=True)
    if len(lines) == limit:
        say(f"These are the newest {limit}: a larger --limit shows older ones.", err=True)
    if as_json:
        return
    if not lines:
        say("No runs.")
        return
    for line in run_table(lines, service.store.ids()):
        say(line)


@click.command("show-run")
@click.argument("run_id", shell_complete=complete_run)
@click.option("--follow", "following", is_flag=True, help="Show progress until the run ends or Ctrl-C.")
@as_json_option
@click.pass_context
def show_run(ctx: click.Context, run_id: str, following: bool, as_json: bool) -> None:
    """Show one run in detail. RUN_ID: the id, or any unique part of it."""
    service = TrainingService()
    view = anyio.run(service.get, run_id)
    if following:
        view = anyio.run(follow, service, view.run_id)
    if as_json:
        print_json(view)
    else:
        print_run(view)
    ctx.exit(run_exit_code(view) if following and view.status in ENDED else 0)


@click.command("resume")
@click.argument("run_id", shell_complete=complete_run)
@click.option("--detach", is_flag=True, help="Queue the run and exit; it continues in the background.")
@click.option(
    "--allow-other-base", is_flag=True, help="Accept a base model that has changed since the training."
)
@click.option(
    "-d",
    "--data",
    "dataset",
    multiple=True,
    metavar="FILE",
    shell_complete=complete_path,
    help="Where the dataset is now, if it has been moved; its content must be equal. May be repeated.",
)
@named_options("gpus")
@as_json_option
@click.pass_context
def resume(
    ctx: click.Context,
    run_id: str,
    detach: bool,
    allow_other_base: bool,
    dataset: tuple[str, ...],
    gpus: Any,
    as_json: bool,
) -> None:
    """Resume a run from its last checkpoint. The result equals an uninterrupted run."""
    service = TrainingService()
    paths = PathPolicy.for_person(service.settings.home)
    moved = resolved_source(dataset[0] if len(dataset) == 1 else [*dataset], paths) if dataset else None

    async def resume_run() -> RunView:
        view = await service.resume(
            run_id, allow_other_base=allow_other_base, dataset=moved, **given({"gpus": gpus})
        )
        return view if detach else await follow_or_cancel(service, view.run_id)

    view = anyio.run(resume_run)
    if as_json:
        print_json(view)
    else:
        print_run(view)
    ctx.exit(0 if detach else run_exit_code(view))


@click.command("cancel")
@click.argument("run_id", shell_complete=complete_run)
@as_json_option
def cancel(run_id: str, as_json: bool) -> None:
    """Stop a run within one step, and save its adapter."""
    service = TrainingService()

    async def stop() -> RunView:
        view = await service.cancel(run_id)
        if view.status in ENDED:
            say(f"The run had already ended ({view.status.value}).", err=True)
            return view
        return await follow(service, view.run_id)

    view = anyio.run(stop)
    if as_json:
        print_json(view)
    else:
        print_run(view)


@click.command("prune")
@click.argument("run_ids", nargs=-1, shell_complete=complete_run)
@click.option("--all-ended", is_flag=True, help="Remove all ended runs.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
def prune(run_ids: tuple[str, ...], all_ended: bool, yes: bool) -> None:
    """Remove ended runs permanently: their folders with adapters, logs and events."""
    service = TrainingService()
    ids = list(run_ids) or (_ended(service) if all_ended else [])
    if not ids and not all_ended:
        raise InputError("No run was given.", hint="Give run ids, or --all-ended.")
    runs = [service.store.find(run_id) for run_id in ids]
    sizes = [run.size() for run in runs]
    for run, size in zip(runs, sizes, strict=True):
        say(f"{run.run_id:<48} {_kind_and_status(service, run):<21} {shown_size(size):>9}")
    what = f"{len(runs)} run(s), {shown_size(sum(sizes))}"
    if not runs or not (yes or click.confirm(f"Remove {what} permanently?")):
        return
    for run in runs:
        anyio.run(service.delete, run.run_id)
    say(f"Removed {what}.")


def _kind_and_status(service: TrainingService, run: RunFolder) -> str:
    try:
        state = service.store.observe(run)
    except StateError:
        return "unreadable"
    return f"{state.kind:<9} {state.status}"


def _ended(service: TrainingService) -> list[str]:
    """The ended runs, and the unreadable folders."""
    return [
        run.run_id
        for run, state in service.store.newest()
        if isinstance(state, Exception) or state.status in ENDED
    ]
