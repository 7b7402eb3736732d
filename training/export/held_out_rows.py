"""The rows of a training run on which its exported model is measured."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config.ledger import read_ledger
from ..data.prepare import prepared_before
from ..data.tokens.kept_rows import TASKS, in_turn, read_kept_rows
from ..runs.folder import RunFolder


@dataclass(frozen=True)
class RunRows:
    """Token ids, and what they are: held-out rows, or training rows where none were held out."""

    which: str
    rows: list[list[int]]


def rows_of_run(run: RunFolder, home: Path, most: int) -> RunRows | None:
    """Up to `most` rows of a run's data, or None if its tokens are no longer in the cache.

    Of a multi-run, rows of every task that is in its adapter.
    """
    ledger = read_ledger(run.path)
    if ledger is not None and (run.path / TASKS).is_dir():
        return _rows_of_tasks(run, len(ledger.kept), most)
    plan: dict[str, Any] = run.plan() or {}
    data = prepared_before(home / "cache" / "tokens", plan.get("tokens_key", ""))
    if data is None:
        return None
    which, examples = (
        ("held-out rows", data.held_out) if len(data.held_out) else ("training rows", data.train)
    )
    rows = [examples.arrays(index)[0].tolist() for index in range(min(most, len(examples)))]
    return RunRows(which, rows)


def _rows_of_tasks(run: RunFolder, count: int, most: int) -> RunRows:
    tasks = [read_kept_rows(run.path / TASKS, number) for number in range(1, count + 1)]
    kinds = sorted({task.scored_on.replace("_", "-") for task in tasks})
    rows = in_turn([task.scored for task in tasks])[:most]
    return RunRows(f"{' and '.join(kinds)} rows", [row.input_ids for row in rows])
