"""The table of `backprop list-runs`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..training.config.specs import TRAININGS
from ..training.runs.identity import seconds_since
from ..training.runs.view import RunLine
from .wrapped import width

HEADS = ("RUN", "STATUS", "AGE", "KIND", "STEPS", "LOSS", "MODEL")


def run_table(lines: Sequence[RunLine], ids: Sequence[str]) -> Iterator[str]:
    """The lines of the table.

    Args:
        ids: every run's id; a run is shown by the part of its id that finds it alone.
    """
    rows = [HEADS, *(_row(line, ids) for line in lines)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADS) - 1)]
    for *cells, model in rows:
        start = "  ".join(f"{cell:<{size}}" for cell, size in zip(cells, widths, strict=True))
        yield f"{start}  {_cut(model, width() - len(start) - 2)}"


def _row(line: RunLine, ids: Sequence[str]) -> tuple[str, ...]:
    steps = f"{line.step}/{line.total_steps or '?'}" if line.kind in TRAININGS else "-"
    loss = f"{line.loss:.4f}" if line.loss is not None else "-"
    age = age_of(seconds_since(line.created_at))
    return short_id(line.run_id, ids), line.status.value, age, line.kind, steps, loss, line.model


def short_id(run_id: str, ids: Sequence[str]) -> str:
    """The end of the id, or its time, or all of it: the first that finds this run alone."""
    parts = (run_id.rpartition("-")[2], run_id.partition("-")[0])
    return next((part for part in parts if sum(part in other for other in ids) <= 1), run_id)


def age_of(seconds: float) -> str:
    """`45s`, `12m`, `3h`, `5d`."""
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= size:
            return f"{int(seconds // size)}{unit}"
    return f"{max(0, int(seconds))}s"


def _cut(text: str, room: int) -> str:
    """The end of a text that is too long: of paths and Hub ids it tells most."""
    return text if len(text) <= room else f"…{text[len(text) - max(room, 2) + 1 :]}"
