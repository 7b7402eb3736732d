"""Text as wide as the terminal, with hanging indents. Pipes and files get each sentence on one line."""

from __future__ import annotations

import shutil
import sys
import textwrap

import click

from ..training.untrusted import sanitized


def width() -> int:
    """Columns of the terminal, or COLUMNS; 80 where neither is known."""
    return shutil.get_terminal_size((80, 24)).columns


def wrapped(text: str, indent: int = 2) -> str:
    """The text in lines of the terminal's width; paths and other long words stay whole."""
    return "\n".join(
        textwrap.fill(
            line,
            width(),
            subsequent_indent=" " * indent,
            break_long_words=False,
            break_on_hyphens=False,
            drop_whitespace=True,
        )
        for line in text.split("\n")
    )


def say(text: str, indent: int = 2, *, err: bool = False) -> None:
    """Print the text, wrapped on a terminal, without control characters of names in it."""
    text = sanitized(text)
    stream = sys.stderr if err else sys.stdout
    click.echo(wrapped(text, indent) if stream.isatty() else text, err=err)
