"""Parts of Markdown pages that are written by a test: between two marks named by the part."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path


def assert_up_to_date(page: Path, parts: Mapping[str, list[str]]) -> None:
    """Hold that each part of the page has these lines; UPDATE_SNAPSHOTS=1 writes them anew."""
    text = wanted = page.read_text(encoding="utf-8")
    for part, lines in parts.items():
        wanted = replaced(wanted, part, lines)
    if os.environ.get("UPDATE_SNAPSHOTS"):
        page.write_text(wanted, encoding="utf-8", newline="\n")
        text = page.read_text(encoding="utf-8")
    assert text == wanted


def replaced(text: str, part: str, lines: list[str]) -> str:
    """`text` with `lines` between the two marks of a generated part."""
    marks = rf"(<!-- {part}:begin[^\n]*-->\n).*?(<!-- {part}:end -->)"
    content = "\n".join(lines)
    changed, count = re.subn(marks, lambda found: f"{found[1]}{content}\n{found[2]}", text, flags=re.DOTALL)
    assert count == 1, f"{count} parts are named {part}"
    return changed
