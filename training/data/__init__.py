"""From a file to `input_ids` and `labels`.

The steps, each usable by itself, in the order in which data takes them:

    open_source(source, …) -> Source            a file, files, a pattern, a folder or a Hub name → rows
    recognise(row, columns) -> Recognised       a row → Conversation | Completion | Text | Preference
    check(data, …) -> Checked                   every row looked at without a tokenizer: counts and findings
    inspect(data, tokenizer, …) -> Inspection   statistics, findings with repairs, a preview
    encode(row, tokenizer, data) -> Encoded     a row → input_ids and labels, with an exact loss mask
    prepare(data, tokenizer, …) -> Prepared     everything: select, split, tokenise, store

`data` is the `DataGroup` of a spec. Progress goes to `report(message, fraction)`, and `should_stop()` is
asked every few hundred rows. Importing this brings in nothing heavier than the standard library and pydantic;
pyarrow, zstandard, datasets, jinja2, tokenizers, rensa and numpy are imported when they are first needed.
"""

from __future__ import annotations

from .check import Checked, check
from .encode import Encoded, Encoder, encode
from .example import IGNORED, Example
from .formats import recognise
from .inspection import inspect
from .inspection_result import Inspection
from .messages import Completion, Conversation, Preference, Recognised, Text
from .prepare import Prepared, Summary, prepare, prepared_before
from .rows import BadRow, Place, Row, RowError
from .sources import Source, open_source
from .token_store import Examples

__all__ = [
    "IGNORED",
    "BadRow",
    "Checked",
    "Completion",
    "Conversation",
    "Encoded",
    "Encoder",
    "Example",
    "Examples",
    "Inspection",
    "Place",
    "Preference",
    "Prepared",
    "Recognised",
    "Row",
    "RowError",
    "Source",
    "Summary",
    "Text",
    "check",
    "encode",
    "inspect",
    "open_source",
    "prepare",
    "prepared_before",
    "recognise",
]
