"""`backprop`: the table of commands, and the handling of errors."""

from __future__ import annotations

import json
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from ..training.errors import BackpropagateError

COMMANDS = {
    "quickstart": (
        ".quickstart",
        "Fine-tune a small real model on an example dataset and compare its answers.",
    ),
    "train": (".train", "Fine-tune a model on a dataset."),
    "plan": (".plan", "Show how a training would run: whether it fits, memory, time, and why."),
    "multi-run": (".multi_run", "Train in runs, merged into one adapter that remembers the earlier ones."),
    "import-openai": (".import_openai", "Map a fine-tuning job of OpenAI's to a training here."),
    "inspect": (".inspect", "Inspect a dataset: content, problems, and what the model sees."),
    "convert": (".convert", "Write a dataset of any known format as chat messages."),
    "data": (".data", "Report repeated and shared rows of datasets, or split one into two files."),
    "list-runs": (".runs", "List past, running and queued runs, newest first."),
    "show-run": (".runs", "Show one run in detail."),
    "diff-runs": (".diff_runs", "Compare two trainings: settings, data, losses, verdict, speed."),
    "resume": (".runs", "Resume a cancelled, failed or interrupted run from its last checkpoint."),
    "cancel": (".runs", "Stop a run and save its adapter."),
    "prune": (".runs", "Remove ended runs permanently."),
    "export": (".export", "Export a trained model as GGUF, merged safetensors, or adapter."),
    "generate": (".generate", "Ask a trained model, and its base beside it."),
    "evaluate": (".evaluate", "Compare two models on the same rows."),
    "chat": (".chat", "Talk with a trained model."),
    "push": (".push", "Publish an adapter or a merged model on the Hugging Face Hub."),
    "config": (".config", "Show the settings and where they come from, or change them."),
    "doctor": (".doctor.command", "Look for what is wrong with the installation, and say the repair."),
    "info": (".info", "Show version, paths, hardware, settings and error codes."),
    "completion": (".completion", "Print the script that completes commands in your shell."),
    "serve": (".serve", "Serve the tools to an MCP client over stdio."),
    "ui": (".ui", "Serve the web page."),
}
"""Command → its module, and its line in the help. Modules are imported when used."""

OTHER_NAMES = {"validate": "inspect", "eval": "evaluate", "runs": "list-runs", "estimate-vram": "plan"}
"""What earlier versions called a command."""

TELL_THEMSELVES = ("doctor", "serve")
"""Commands that tell or log themselves what is to be said about the names of variables."""

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


class LazyGroup(click.Group):
    """A group that lists its commands without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if OTHER_NAMES.get(cmd_name) in COMMANDS:
            from .wrapped import say

            say(f"{cmd_name} is called {OTHER_NAMES[cmd_name]} here.", err=True)
            cmd_name = OTHER_NAMES[cmd_name]
        if cmd_name not in COMMANDS:
            return None
        from .older_options import add_older_options

        module = import_module(COMMANDS[cmd_name][0], __package__)
        command: click.Command = getattr(module, cmd_name.replace("-", "_"))
        add_older_options(command)
        _add_verbose(command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        from ..training.errors import InputError
        from ..training.nearest_name import nearest

        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            from .older_options import GONE

            if args[0] in GONE:
                raise InputError(f"{args[0]} is not a command here.", hint=GONE[args[0]]) from None
            close = nearest(args[0], COMMANDS)
            if close is None:
                raise
            raise click.UsageError(f"{error.message} Did you mean {close}?", ctx) from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


def _add_verbose(command: click.Command) -> None:
    """Accept --verbose after the command, and after the commands in it."""
    for inner in command.commands.values() if isinstance(command, click.Group) else ():
        _add_verbose(inner)
    if not any(parameter.name == "verbose" for parameter in command.params):
        command.params.append(click.Option(["-v", "--verbose"], callback=_remember, **VERBOSE))


def _remember(ctx: click.Context, _parameter: click.Parameter, verbose: bool) -> None:
    if verbose:
        ctx.ensure_object(dict)["verbose"] = True


VERBOSE: Any = {
    "is_flag": True,
    "is_eager": True,
    "expose_value": False,
    "help": "Show the stack trace of an unexpected error.",
}


@click.group(cls=LazyGroup, context_settings=CONTEXT, invoke_without_command=True)
@click.option("-v", "--verbose", callback=_remember, **VERBOSE)
@click.version_option(None, "-V", "--version", package_name="backpropagate-mcp", prog_name="backprop")
@click.pass_context
def backprop(ctx: click.Context) -> None:
    """Fine-tune language models from an MCP client, from Python, or from the command line."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())
    elif ctx.invoked_subcommand not in TELL_THEMSELVES:
        _tell_of_names()


def _tell_of_names() -> None:
    """What is to be said about names of variables; what is wrong with them is an error of the command."""
    from contextlib import suppress

    from ..training.config.settings import home_folder, notes_of
    from ..training.errors import BackpropagateError
    from .wrapped import say

    with suppress(BackpropagateError):
        for note in notes_of(home_folder() / ".env"):
            say(note, err=True)


def run(arguments: list[str], wire: int | None = None) -> int:
    """Run a command line; returns the exit code: 0 done, 1 input, 2 run-time failure, 3 partly done.

    An error is printed on stderr and, with --json, also on stdout: `{"error": {"code", "message", "hint"}}`.

    Args:
        wire: descriptor of the real stdout, if `serve` has reserved it.
    """
    about: dict[str, Any] = {"wire": wire, "verbose": False}
    try:
        return backprop.main(arguments, prog_name="backprop", standalone_mode=False, obj=about) or 0
    except click.exceptions.Exit as error:
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("Aborted.", err=True)
        return 1
    except Exception as error:
        return _failed(error, verbose=about["verbose"], as_json="--json" in arguments)


def _failed(error: Exception, *, verbose: bool, as_json: bool) -> int:
    from ..training.errors import help_of
    from ..training.redact import scrub, scrub_all
    from .wording import as_options, words
    from .wrapped import say, say_json, say_lines

    if verbose and not isinstance(error, click.UsageError):
        import traceback
        from textwrap import indent

        # Indented: a line of a foreign text in it cannot pass for one of ours.
        say_lines(indent(scrub("".join(traceback.format_exception(error))), "  "), err=True)
    known = _as_ours(error, verbose)
    say(f"Error: {scrub(as_options(known.sentence(words)))}", err=True)
    if known.untrusted:
        say(f"  (untrusted) {scrub(known.untrusted)}", err=True)
    if as_json:
        record = {
            "code": known.code,
            "message": known.message,
            "hint": help_of(known.record(), words) or None,
        }
        if known.untrusted:
            record["untrusted_details"] = known.untrusted
        say_json(json.dumps({"error": scrub_all(record)}, indent=1))
    return known.exit_code


def _as_ours(error: Exception, verbose: bool) -> BackpropagateError:
    """Any exception as an error with a code and a hint."""
    from ..training.errors import BackpropagateError, InputError, RuntimeFailure

    if isinstance(error, BackpropagateError):
        return error
    if isinstance(error, click.UsageError):
        command = error.ctx.command_path if error.ctx else "backprop"
        return InputError(error.format_message(), hint=f"See `{command} --help`.")
    hint = None if verbose else "Run `backprop --verbose …` for the stack trace."
    return RuntimeFailure(f"Unexpected {type(error).__name__}.", hint=hint, untrusted=str(error))
