"""A run, printed for a person or as JSON."""

from __future__ import annotations

import click

from ..tools.status import answers_of, duration
from ..training.errors import describe
from ..training.redact import cleaned
from ..training.runs.folder import Status
from ..training.runs.view import RunView
from .wording import words

SUBJECTS = {"register": "name", "push": "repo"}
"""What a run of this kind has in the place of a base model."""


def print_json(view: RunView) -> None:
    click.echo(view.model_copy(update={"next": next_command(view)}).model_dump_json(indent=1))


def print_run(view: RunView) -> None:
    """Status, losses, answers, paths and the next command."""
    click.echo(f"Run {view.run_id}: {view.status}")
    click.echo(f"  {SUBJECTS.get(view.kind, 'model'):<8} {view.model}")
    if view.training:
        click.echo(f"  of run   {view.training}")
    if view.dataset:
        click.echo(f"  dataset  {view.dataset}")
    if view.summary:
        click.echo(f"  result   {view.summary}")
    if view.path:
        click.echo(f"  file     {view.path}")
    if view.data:
        click.echo(f"  data     {view.data}")
    if view.step:
        click.echo(f"  steps    {view.step}/{view.total_steps}")
    if view.loss is not None:
        before = f"{view.first_loss:.4f} → " if view.first_loss is not None else ""
        click.echo(f"  loss     {before}{view.loss:.4f}")
    if view.eval_loss is not None:
        before = f"{view.eval_loss_before:.4f} → " if view.eval_loss_before is not None else ""
        click.echo(f"  held out {before}{view.eval_loss:.4f}")
    if view.engine:
        click.echo(f"  engine   {view.engine}")
    if view.eta_s is not None:
        click.echo(f"  left     about {duration(view.eta_s)}")
    if view.phase and view.status in {Status.QUEUED, Status.RUNNING}:
        click.echo(f"  doing    {view.phase}")
    if view.adapter_path:
        click.echo(f"  adapter  {view.adapter_path}")
    if view.output:
        click.echo(f"  copy     {view.output}")
    for warning in view.warnings:
        click.echo(f"  warning  {warning}")
    print_answers(view)
    if view.error:
        click.echo(f"  error    {describe(view.error, words)}")
    click.echo(f"Next: {next_command(view)}")


def print_answers(view: RunView) -> None:
    if not view.answers:
        return
    click.echo("  answers")
    for answer in view.answers:
        click.echo(f"    {_line(answer.question)}")
        for label, text in answers_of(answer):
            click.echo(f"      {label:<9} {_line(text)}")


def next_command(view: RunView) -> str:
    match view.status:
        case Status.QUEUED | Status.RUNNING:
            return f"backprop show-run {view.run_id} --follow"
        case Status.COMPLETED if view.kind == "register":
            return f"ollama run {view.model}"
        case Status.COMPLETED if str(view.path).endswith(".gguf"):
            return f"backprop export {view.path} --ollama --ollama-name NAME"
        case Status.FAILED | Status.CANCELLED | Status.INTERRUPTED if view.kind == "register":
            return f"backprop export {view.path} --ollama --ollama-name {view.model}"
        case Status.COMPLETED if view.kind != "train":
            return f"use {view.path or view.model}"
        case Status.COMPLETED:
            return f"backprop export {view.run_id}  (a GGUF file; --ollama makes it answer in Ollama)"
        case Status.FAILED if view.error and view.error.code.split("_")[0] in {"INPUT", "CONFIG", "DEP"}:
            return "do what the error says, and start it again"
        case Status.CANCELLED | Status.FAILED | Status.INTERRUPTED:
            return f"backprop resume {view.run_id}"


def _line(text: str | None) -> str:
    """A model's text on one line, without control characters that a terminal would obey."""
    return cleaned(text or "")
