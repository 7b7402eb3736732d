"""From a file to `input_ids` and `labels`.

    readers/         a file, files, a pattern, a folder or a Hub name → raw rows with their places
    formats/         a raw row → Conversation | Completion | Text | Preference
    cleaning/        duplicates, quality, private data, control tokens
    chat_template/   a conversation → text, and the characters that the assistant wrote
    tokens/          text → input_ids and labels with an exact loss mask; the store on disk
    split/           selection of rows, held-out rows, training order
    report/          inspection: findings with repairs, statistics, preview; repeated and shared rows
    rewrite/         new files from others: converted to chat messages, or split in two
    row_counts.py    numbers of rows in words
    findings.py      the kinds of problems of rows, and their repairs
    check.py         checks every row without a tokenizer
    prepare.py       the whole path: select, split, tokenise, store
    local_source.py  checks of a dataset before its rows are read

A new row format goes into formats/ (a name in messages.py, a case in recognise.py), a new file type into
readers/ (a case in sources.py), a new problem of rows into `findings.KINDS`.

`data` is the `DataGroup` of a spec. Progress goes to `report` as `Phase` events. `should_stop()` is called
every few hundred rows. At import, modules need only the standard library and pydantic; pyarrow, zstandard,
datasets, jinja2, tokenizers, rensa and numpy are imported when they are first needed.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .formats.recognise import recognise as recognise
    from .tokens.encode import encode as encode
    from .tokens.example import IGNORED as IGNORED
    from .tokens.example import Example as Example

_PUBLIC = {
    "IGNORED": ".tokens.example",
    "Example": ".tokens.example",
    "encode": ".tokens.encode",
    "recognise": ".formats.recognise",
}
"""What docs/data-formats.md shows, loaded at its first use."""

__all__ = ["IGNORED", "Example", "encode", "recognise"]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
