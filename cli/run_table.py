"""The table of `backprop list-runs`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..training.config.specs import TRAININGS
from ..training.runs.identity import seconds_since
from ..training.runs.view import RunView
from .wrapped import width

HEADS = ("RUN", "STATUS", "AGE", "KIND", "STEPS", "LOSS", "MODEL")


def run_table(views: Sequence[RunView], ids: Sequence[str]) -> Iterator[str]:
    """The lines of the table.

    Args:
        ids: every run's id; a run is shown by the part of its id that finds it alone.
    """
    rows = [HEADS, *(_row(view, ids) for view in views)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADS) - 1)]
    for *cells, model in rows:
        start = "  ".join(f"{cell:<{size}}" for cell, size in zip(cells, widths, strict=True))
        yield f"{start}  {_cut(model, width() - len(start) - 2)}"


def _row(view: RunView, ids: Sequence[str]) -> tuple[str, ...]:
    steps = f"{view.step}/{view.total_steps or '?'}" if view.kind in TRAININGS else "-"
    loss = f"{view.loss:.4f}" if view.loss is not None else "-"
    age = age_of(seconds_since(view.created_at))
    return short_id(view.run_id, ids), view.status.value, age, view.kind, steps, loss, view.model


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
