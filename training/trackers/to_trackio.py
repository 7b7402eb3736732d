"""trackio: a local database, or the Space or server that its variables name."""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

from .facts import PROJECT, Facts
from .measures import Point, Value


class Trackio:
    """A run of trackio. A later attempt continues it by its name.

    Raises:
        Exception: whatever trackio raises, e.g. if its Space cannot be reached.
    """

    def __init__(self, facts: Facts) -> None:
        trackio: Any = import_module("trackio")
        project = os.environ.get("TRACKIO_PROJECT") or PROJECT
        self._run = trackio.init(
            project=project,
            name=facts.name,
            config=facts.settings,
            resume="allow",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )
        remote = os.environ.get("TRACKIO_SPACE_ID") or os.environ.get("TRACKIO_SERVER_URL")
        self.place = remote or str(import_module("trackio.utils").TRACKIO_DIR)

    def log(self, points: list[Point]) -> None:
        for point in points:
            self._run.log(point.values, step=point.step)

    def end(self, step: int, summary: dict[str, Value], *, succeeded: bool) -> None:
        self._run.log(summary, step=step)
        self._run.finish()
