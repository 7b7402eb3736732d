"""Text as wide as the terminal, with hanging indents. Pipes and files get each sentence on one line."""

from __future__ import annotations

import shutil
import sys
import textwrap

import click

from ..training.redact import scrub
from ..training.untrusted import encodable, escaped, sanitized
from .code_page import encodable_json


def width() -> int:
    """Columns of the terminal, or COLUMNS; 80 where neither is known."""
    return shutil.get_terminal_size((80, 24)).columns


def wrapped(text: str, indent: int = 2) -> str:
    """One line as lines of the terminal's width; paths and other long words stay whole."""
    return textwrap.fill(
        text,
        width(),
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
        drop_whitespace=True,
    )


def say(text: str, indent: int = 2, *, err: bool = False) -> None:
    """Print one line without secrets, wrapped on a terminal. No name in it begins another or commands it."""
    line = encodable(sanitized(scrub(text))).replace("\n", " ")
    stream = sys.stderr if err else sys.stdout
    click.echo(wrapped(line, indent) if stream.isatty() else line, err=err)


def say_lines(text: str, indent: int = 2, *, err: bool = False) -> None:
    """Print a text whose line breaks are our own."""
    for line in text.split("\n"):
        say(line, indent, err=err)


def say_json(text: str) -> None:
    """Print JSON: its values exactly, what a terminal could take for a command as JSON's escapes."""
    click.echo(encodable_json(escaped(text)))
