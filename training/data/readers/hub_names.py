"""Which names are datasets of the Hub."""

from __future__ import annotations

import re

from ...files.paths import looks_like_path

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(:[\w.-]+)?")


def is_hub_name(name: str) -> bool:
    """Whether `name` has the form `owner/name` or `owner/name:config`, and is not the path of a file."""
    return bool(HUB_NAME.fullmatch(name)) and not re.search(
        r"\.(jsonl?|csv|tsv|parquet|txt|md|gz|zst)$", name
    )


def is_on_hub(name: str) -> bool:
    """Whether a dataset is on the Hub: it has a Hub name, and is no path of this machine."""
    return is_hub_name(name) and not looks_like_path(name)
