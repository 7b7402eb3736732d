"""`backprop convert`."""

from __future__ import annotations

import json
from typing import Any

import click

from ..training.data.rewrite.convert import convert as convert_rows
from ..training.untrusted import quoted, shown_path
from .completion import complete_path
from .data import READING, new_file, spec_of
from .options import named_options
from .runs import as_json_option
from .wording import as_options
from .wrapped import say, say_json


@click.command("convert")
@click.argument("dataset", shell_complete=complete_path)
@click.option("-o", "--output", required=True, metavar="FILE", help="The new .jsonl file.")
@named_options("on_bad_rows", *READING)
@as_json_option
def convert(dataset: str, output: str, as_json: bool, **values: Any) -> None:
    """Write DATASET, of any known format, as chat messages in JSON Lines.

    Roles, tools, tool calls and weights are kept; a row of plain text stays one.
    """
    target = new_file(output, "output")
    done = convert_rows(spec_of(dataset, values).data, target)
    left_out = [as_options(found.sentence()) for found in done.left_out]
    unread = sorted(done.unread)
    if as_json:
        facts = {"rows": done.rows, "written": done.written, "texts": done.texts}
        say_json(
            json.dumps({"output": str(target), **facts, "left_out": left_out, "unread": unread}, indent=1)
        )
        return
    say(f"{done.written} of {done.rows} rows: {shown_path(target)}")
    if done.texts:
        say(f"{done.texts} of them are plain text, without messages.", err=True)
    if unread:
        say(f"Not written, since no model sees them: the keys {', '.join(map(quoted, unread))}.", err=True)
    for sentence in left_out:
        say(f"Left out: {sentence}.", err=True)
