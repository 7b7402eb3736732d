"""Output to a stream whose encoding lacks characters: on Windows a pipe or a file gets the code page's."""

from __future__ import annotations

import codecs
import io
import json
import sys

PLAIN = {
    "→": "->",
    "⏎": "|",
    "…": "...",
    "—": "-",
    "·": "|",
    "°": "",
    "√": "sqrt ",
    **{bar: str(height) for height, bar in enumerate("▁▂▃▄▅▆▇█", start=1)},
}
"""Characters of our own sentences, and what stands for them; others are told by JSON's escapes."""

IN_TEXT, IN_JSON = "backpropagate.text", "backpropagate.json"


def _for_json(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end


def _for_text(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(PLAIN.get(each, json.dumps(each)[1:-1]) for each in lacking), error.end


codecs.register_error(IN_JSON, _for_json)
codecs.register_error(IN_TEXT, _for_text)


def never_fail_to_print() -> None:
    """Let stdout and stderr write something for each character, whatever their encoding is."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # without a console there may be none
            stream.reconfigure(errors=IN_TEXT)


def encodable_json(text: str) -> str:
    """JSON with escapes for what stdout cannot encode: its values stay exact."""
    encoding = sys.stdout.encoding or "utf-8"
    return text.encode(encoding, IN_JSON).decode(encoding)
