"""`backprop inspect`."""

from __future__ import annotations

from typing import Any

import anyio
import click

from ..tools.inspect_dataset import DatasetReport, dataset_report
from ..training.config.results import InspectResult
from ..training.errors import from_record
from ..training.requests.argument_paths import with_resolved_paths
from ..training.requests.inspect import inspect_spec
from ..training.requests.settings import alias_notes
from ..training.runs.folder import Status
from ..training.runs.view import RunView
from ..training.service import TrainingService
from .completion import complete_path
from .follow import follow, follow_or_cancel
from .options import given, setting_options
from .wording import as_options, words
from .wrapped import say, say_json, say_lines


@click.command("inspect")
@click.argument("dataset", shell_complete=complete_path)
@setting_options("data", "model")
@click.option("--preview", type=click.IntRange(0, 20), default=3, show_default=True, help="Rows to show.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def inspect(ctx: click.Context, dataset: str, preview: int, as_json: bool, **values: Any) -> None:
    """Inspect a dataset: its content, its problems by line, and what the model sees."""
    service = TrainingService()
    arguments = with_resolved_paths({**given(values), "dataset": dataset}, service.settings, weights=False)
    spec = inspect_spec(service.settings, arguments=arguments, preview=preview)
    for note in alias_notes(arguments):
        say(note, err=True)

    async def look() -> Any:
        submission = await service.submit(spec, find_equal=True)
        show = follow if submission.existing else follow_or_cancel
        return await show(service, submission.run_id)

    view = anyio.run(look)
    if view.error:
        raise from_record(view.error)
    if view.status is not Status.COMPLETED:
        ctx.exit(2)
    assert isinstance(view.result, InspectResult)
    report = dataset_report(view.run_id, view.result)
    if as_json:
        say_json(report.model_dump_json(indent=1, exclude_none=True))
    else:
        say_lines(_for_a_person(report, view).text())


def _for_a_person(report: DatasetReport, view: RunView) -> DatasetReport:
    """The report with options and commands for arguments and calls; the rows' text stays as it is."""
    assert isinstance(view.result, InspectResult)
    remedy = view.result.remedy
    findings = [
        found.model_copy(update={"repair": found.repair and as_options(found.repair)})
        for found in report.findings
    ]
    following = words(view.next) if view.next else ""
    if remedy:
        following = f"{as_options(remedy)}. Then inspect it again."
    notes = [as_options(note) for note in report.notes]
    return report.model_copy(update={"findings": findings, "notes": notes, "next": following})
