"""Searches texts for a regular expression: run as a script, in a process that can be ended.

Reads `[pattern, [text, …]]` as JSON from stdin, and writes what was found in each text to stdout: null, or
what the last match captures. Only the standard library is imported: the file runs without the package.
"""

from __future__ import annotations

import json
import re
import sys


def found_in(pattern: re.Pattern[str], text: str) -> str | None:
    """What the last match captures: its first group, or all of it without groups."""
    matches = [*pattern.finditer(text)]
    if not matches:
        return None
    last = matches[-1]
    return last[1] or "" if pattern.groups else last[0]


def main() -> None:
    given, texts = json.loads(sys.stdin.buffer.read())
    try:
        pattern = re.compile(given)
    except (re.error, RecursionError, OverflowError) as error:
        answer = {"error": str(error)}
    else:
        answer = {"groups": pattern.groups, "found": [found_in(pattern, text) for text in texts]}
    sys.stdout.buffer.write(json.dumps(answer).encode())


if __name__ == "__main__":
    main()
