"""`backprop generate`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from textwrap import indent
from typing import Any, TypeVar

import click

from ..training.config.results import GenerateResult, Reply
from ..training.errors import InputError
from ..training.files.paths import PathPolicy
from ..training.requests.generate import generate_spec
from ..training.runs.view import RunView
from ..training.service import Submission, TrainingService
from ..training.untrusted import shown_path
from .completion import complete_run_or_path
from .show import print_run
from .train import run_and_print
from .wrapped import say, say_lines

Function = TypeVar("Function", bound=Callable[..., Any])


def base_option(*, default: bool) -> Callable[[Function], Function]:
    """The option of the base model's answers."""
    return click.option(
        "--base/--no-base",
        "compare_base",
        default=default,
        show_default=True,
        help="Also answer without the adapter.",
    )


def answer_options(function: Function) -> Function:
    """The options of how answers are made."""
    options = (
        click.option("--max-new-tokens", type=int, metavar="N", help="Maximum tokens per answer."),
        click.option(
            "--temperature",
            type=float,
            metavar="X",
            help="0 (default): the likeliest token; above: sampled.",
        ),
        click.option("--top-p", type=float, metavar="X", help="Sample from the likeliest tokens only."),
        click.option("--seed", type=int, metavar="N", help="Seed of the samples."),
        click.option("--system", metavar="TEXT", help="System message; may be empty."),
        click.option("--load-in-4bit/--no-load-in-4bit", default=None, help="Load the base in 4 bits."),
        click.option("--allow-other-base", is_flag=True, help="Accept a changed base model."),
        click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), help="Device to answer on."),
    )
    for option in reversed(options):
        function = option(function)
    return function


@click.command("generate")
@click.argument("source", shell_complete=complete_run_or_path)
@click.argument("prompts", nargs=-1, metavar="TEXT...")
@click.option("--file", "files", multiple=True, metavar="FILE", help="File with one prompt. May be repeated.")
@base_option(default=True)
@answer_options
@click.option("--json", "as_json", is_flag=True, help="Print the run as JSON.")
@click.pass_context
def generate(
    ctx: click.Context,
    source: str,
    prompts: tuple[str, ...],
    files: tuple[str, ...],
    as_json: bool,
    **settings: Any,
) -> None:
    """Ask SOURCE: a run id, the path of an adapter or model folder, or a model.

    Each TEXT is a prompt of its own. The base model's answer is shown beside that of the adapter.
    """
    service = TrainingService()
    paths = PathPolicy.for_person(service.settings.home)
    asked = [*prompts, *(_content(file, paths) for file in files)]

    async def submit() -> Submission:
        return await service.submit(generate_spec(source, asked, service.store, paths, **settings))

    run_and_print(ctx, service, submit, print_generated, as_json=as_json)


def _content(file: str, paths: PathPolicy) -> str:
    path = Path(paths.resolve(file, "file"))
    try:
        return path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"file: {shown_path(path)} cannot be read as UTF-8 text ({type(error).__name__}).", cause=error
        ) from error


def print_generated(view: RunView) -> None:
    """The answers, whole; of a run without answers, what is known of it."""
    result = view.result
    if not isinstance(result, GenerateResult) or not result.answers:
        print_run(view)
        return
    for answer in result.answers:
        say_lines(indent(answer.prompt, "> ", lambda line: True))
        for label, reply in (("base", answer.base), ("tuned", answer.tuned)):
            if reply is not None:
                print_reply(label, reply)
    for line in (result.summary, *(f"warning: {warning}" for warning in view.warnings)):
        say(line, err=True)


def print_reply(label: str, reply: Reply) -> None:
    """A model's text, indented: no line of it can pass for one of ours."""
    say(f"{label}:" if reply.stopped else f"{label} (cut at {reply.tokens} tokens):")
    say_lines(indent(reply.text, "    ", lambda line: True), 4)
