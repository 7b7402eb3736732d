"""`backprop`: the table of commands, and the handling of errors."""

from __future__ import annotations

import json
from importlib import import_module
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from ..training.errors import BackpropagateError

COMMANDS = {
    "quickstart": (
        ".quickstart",
        "Fine-tune a small real model on an example dataset and compare its answers.",
    ),
    "train": (".train", "Fine-tune a model on a dataset."),
    "multi-run": (".multi_run", "Train in runs, merged into one adapter that remembers the earlier ones."),
    "inspect": (".inspect", "Inspect a dataset: content, problems, and what the model sees."),
    "list-runs": (".runs", "List past, running and queued runs, newest first."),
    "show-run": (".runs", "Show one run in detail."),
    "resume": (".runs", "Resume a cancelled, failed or interrupted run from its last checkpoint."),
    "cancel": (".runs", "Stop a run and save its adapter."),
    "prune": (".runs", "Remove ended runs permanently."),
    "export": (".export", "Export a trained model as GGUF, merged safetensors, or adapter."),
    "generate": (".generate", "Ask a trained model, and its base beside it."),
    "evaluate": (".evaluate", "Compare two models on the same rows."),
    "chat": (".chat", "Talk with a trained model."),
    "push": (".push", "Publish an adapter or a merged model on the Hugging Face Hub."),
    "info": (".info", "Show version, paths, hardware, settings and error codes."),
    "serve": (".serve", "Serve the tools to an MCP client over stdio."),
}
"""Command → its module, and its line in the help. Modules are imported when used."""

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


class LazyGroup(click.Group):
    """A group that lists its commands without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = import_module(COMMANDS[cmd_name][0], __package__)
        return getattr(module, cmd_name.replace("-", "_"))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        from ..training.errors import nearest

        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            close = nearest(args[0], COMMANDS)
            if close is None:
                raise
            raise click.UsageError(f"{error.message} Did you mean {close}?", ctx) from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings=CONTEXT, invoke_without_command=True)
@click.option("--verbose", is_flag=True, help="Show the stack trace of an unexpected error.")
@click.version_option(None, "--version", package_name="backpropagate-mcp", prog_name="backprop")
@click.pass_context
def backprop(ctx: click.Context, verbose: bool) -> None:
    """Fine-tune language models from an MCP client, from Python, or from the command line."""
    ctx.ensure_object(dict)["verbose"] = verbose
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def run(arguments: list[str], wire: int | None = None) -> int:
    """Run a command line; returns the exit code: 0 done, 1 input, 2 run-time failure, 3 partly done.

    An error is printed on stderr and, with --json, also on stdout: `{"error": {"code", "message", "hint"}}`.

    Args:
        wire: descriptor of the real stdout, if `serve` has reserved it.
    """
    try:
        return backprop.main(arguments, prog_name="backprop", standalone_mode=False, obj={"wire": wire}) or 0
    except click.exceptions.Exit as error:
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("Aborted.", err=True)
        return 1
    except Exception as error:
        return _failed(error, verbose="--verbose" in arguments, as_json="--json" in arguments)


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
