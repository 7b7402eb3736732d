"""`backprop chat`."""

from __future__ import annotations

from typing import Any

import click

from ..training.chat import Conversation
from ..training.chat import chat as converse
from ..training.config.results import GeneratedAnswer
from ..training.config.settings import load_settings
from ..training.errors import InputError
from ..training.events import Event, Phase, Warned
from ..training.files.paths import PathPolicy
from ..training.requests.generate import generate_spec
from ..training.runs.store import RunStore
from .completion import complete_run_or_path
from .generate import answer_options, base_option, print_reply
from .wording import as_options, words
from .wrapped import say

RESET = "/reset"
HINT = f"An empty line or Ctrl-D ends the chat; {RESET} begins a new conversation."
LEAVE = ("", "/exit", "/quit")


@click.command("chat")
@click.argument("source", shell_complete=complete_run_or_path)
@base_option(default=False)
@answer_options
@click.pass_context
def chat(ctx: click.Context, source: str, **settings: Any) -> None:
    """Talk with SOURCE: a run id, the path of an adapter or model folder, or a model.

    With --base, the base model answers beside it. An empty line or Ctrl-D ends the chat; /reset begins a new
    conversation.
    """
    defaults = load_settings()
    store, paths = RunStore(defaults.home), PathPolicy.for_person(defaults.home)
    generate_spec(source, ["a first line"], store, paths, **settings)  # raises before anything is typed
    say(HINT, err=True)
    first = _line()
    if first is None:
        return
    spec = generate_spec(source, [first], store, paths, **settings)
    converse(spec, store, defaults.runtime_dir, lambda conversation: _talk(conversation, first), _show)


def _talk(conversation: Conversation, first: str) -> None:
    if not conversation.has_template:
        say("The model has no chat template: each line is continued as plain text.", err=True)
    line: str | None = first
    while line is not None:
        _answer(conversation, line)
        line = _line()


def _answer(conversation: Conversation, line: str) -> None:
    if line == RESET:
        conversation.reset()
        say("A new conversation.", err=True)
        return
    try:
        answer = conversation.say(line)
    except InputError as error:  # e.g. too long: the conversation can go on
        say(f"{as_options(error.sentence(words))} {RESET} begins a new conversation.", err=True)
        return
    _print(answer)


def _print(answer: GeneratedAnswer) -> None:
    for label, reply in (("tuned", answer.tuned), ("base", answer.base)):
        if reply is not None:
            print_reply(label, reply)


def _line() -> str | None:
    """The user's next line; None to leave."""
    click.echo("> ", nl=False, err=True)
    try:
        line = input().strip()
    except EOFError:
        return None
    return None if line in LEAVE else line


def _show(event: Event) -> None:
    if isinstance(event, Phase | Warned):
        say(f"  {event.message}", 4, err=True)
