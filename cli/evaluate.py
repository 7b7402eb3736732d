"""`backprop evaluate`."""

from __future__ import annotations

from typing import Any, get_args

import click

from ..training.config.fields import Metrics
from ..training.config.results import EvaluateResult
from ..training.config.scores import MetricScore, RowFlip
from ..training.files.paths import PathPolicy
from ..training.requests.evaluate import evaluate_spec
from ..training.requests.settings import alias_notes
from ..training.runs.view import RunView
from ..training.service import Submission, TrainingService
from ..training.untrusted import one_line, quoted
from .completion import complete_path, complete_run_or_path
from .options import given, setting_options
from .show import next_command, print_run
from .train import run_and_print
from .wrapped import say, say_lines

METRICS = get_args(get_args(get_args(Metrics)[0])[0])
OWN = ("pattern", "max_new_tokens", "load_in_4bit", "allow_other_base", "device")
HEADS = ("METRIC", "ROWS", "AGAINST", "THIS", "CHANGE", "99% INTERVAL", "WON", "LOST")


@click.command("evaluate")
@click.argument("source", shell_complete=complete_run_or_path)
@click.option(
    "-d",
    "--data",
    "--dataset",
    "dataset",
    multiple=True,
    metavar="FILE",
    shell_complete=complete_path,
    help="The rows; may be repeated. Default: the rows that the run held out.",
)
@click.option(
    "--against",
    metavar="SOURCE",
    shell_complete=complete_run_or_path,
    help="The other model: as SOURCE. Default: base, SOURCE without its adapter.",
)
@click.option(
    "--metric",
    "metrics",
    multiple=True,
    type=click.Choice(METRICS),
    help="What to measure; the first gives the verdict. Default: all that the rows allow. May be repeated.",
)
@click.option("--pattern", metavar="REGEX", help="Regular expression of the metric regex.")
@click.option("--max-new-tokens", type=int, metavar="N", help="Maximum tokens per answer.")
@click.option("--load-in-4bit/--no-load-in-4bit", default=None, help="Load the bases in 4 bits.")
@click.option("--allow-other-base", is_flag=True, help="Accept a changed base model.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), help="Device to measure on.")
@setting_options("data")
@click.option("--detach", is_flag=True, help="Start the run and exit; it continues in the background.")
@click.option("--json", "as_json", is_flag=True, help="Print the run as JSON.")
@click.pass_context
def evaluate(
    ctx: click.Context,
    source: str,
    dataset: tuple[str, ...],
    against: str | None,
    metrics: tuple[str, ...],
    detach: bool,
    as_json: bool,
    **values: Any,
) -> None:
    """Compare SOURCE with its base, or with another model, on the same rows.

    SOURCE is a run id, the path of an adapter or model folder, or a model.
    """
    service = TrainingService()
    own = {name: values.pop(name) for name in OWN}
    settings = given(values)
    for note in alias_notes(settings):
        say(note, err=True)

    async def submit() -> Submission:
        spec = evaluate_spec(
            source,
            service.store,
            PathPolicy.for_person(service.settings.home),
            service.settings,
            dataset=_one_or_all(dataset),
            against=against,
            settings=settings,
            metrics=list(metrics) or None,
            **own,
        )
        return await service.submit(spec)

    run_and_print(ctx, service, submit, print_evaluated, detach=detach, as_json=as_json)


def _one_or_all(dataset: tuple[str, ...]) -> str | list[str] | None:
    return dataset[0] if len(dataset) == 1 else [*dataset] or None


def print_evaluated(view: RunView) -> None:
    """The verdict, a table of the metrics, and a few rows that changed."""
    result = view.result
    if not isinstance(result, EvaluateResult):
        print_run(view)
        return
    say(f"Run {view.run_id}: {view.status}")
    say(result.summary)
    say_lines("\n".join(score_table(result)))
    for warning in view.warnings:
        say(f"warning: {warning}", 9)
    for flip in result.flips:
        _print_flip(flip)
    say(f"{result.tokens:,} tokens generated; {result.seconds:.0f} s on {result.device}, without loading.")
    say(f"Next: {next_command(view)}", 6)


def score_table(result: EvaluateResult) -> list[str]:
    """The lines of the table: one for each score, then those of each task."""
    scores = [(score.metric, score) for score in result.scores]
    scores += [
        (f"{score.metric} of {quoted(task.task)}", score) for task in result.tasks for score in task.scores
    ]
    rows = [HEADS, *(_row(name, score) for name, score in scores)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADS))]
    return [
        "  ".join(f"{cell:<{size}}" for cell, size in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def _row(name: str, score: MetricScore) -> tuple[str, ...]:
    counts = ("-" if count is None else str(count) for count in (score.won, score.lost))
    interval = score.interval if score.low is not None else "-"
    shown = (score.shown(score.against), score.shown(score.this), score.signed(score.change))
    return name, str(score.rows), *shown, interval, *counts


def _print_flip(flip: RowFlip) -> None:
    """Texts of models and files, each indented on a line of its own: none can pass for one of ours."""
    what = "only this model has it right" if flip.won else "only the other model has it right"
    say(f"{one_line(flip.place)}, {flip.metric}: {what}")
    for label, text in (
        ("question", flip.untrusted_question),
        ("right", flip.untrusted_expected),
        ("against", flip.untrusted_against),
        ("this", flip.untrusted_this),
    ):
        say(f"    {label:<9} {one_line(text)}", 14)
