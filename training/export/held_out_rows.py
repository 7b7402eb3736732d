"""The rows of a training run on which its exported model is measured."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..data.prepare import prepared_before
from ..runs.folder import RunFolder


@dataclass(frozen=True)
class RunRows:
    """Token ids, and what they are: held-out rows, or training rows where none were held out."""

    which: str
    rows: list[list[int]]


def rows_of_run(run: RunFolder, home: Path, most: int) -> RunRows | None:
    """Up to `most` rows of a run's data, or None if its tokens are no longer in the cache."""
    plan: dict[str, Any] = run.plan() or {}
    data = prepared_before(home / "cache" / "tokens", plan.get("tokens_key", ""))
    if data is None:
        return None
    which, examples = (
        ("held-out rows", data.held_out) if len(data.held_out) else ("training rows", data.train)
    )
    rows = [examples.arrays(index)[0].tolist() for index in range(min(most, len(examples)))]
    return RunRows(which, rows)
