"""Weights & Biases: the run, its settings and its numbers; nothing of this machine, its files or its code."""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

from .facts import PROJECT, Facts
from .measures import Point, Value

STEP = "train/global_step"
PRIVATE = {
    "console": "off",
    "disable_code": True,
    "disable_git": True,
    "host": "backpropagate",
    "save_code": False,
    "silent": True,
    "x_disable_machine_info": True,
    "x_disable_meta": True,
    "x_disable_stats": True,
    "x_save_requirements": False,
}
"""Settings of wandb; versions differ in which of them they know."""


class Wandb:
    """A run of wandb. A later attempt continues it, since its id is the run's.

    Raises:
        Exception: whatever wandb raises, e.g. without a login.
    """

    def __init__(self, facts: Facts) -> None:
        wandb: Any = import_module("wandb")
        known = wandb.Settings.model_fields
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or PROJECT,
            id=facts.run_id,
            name=facts.name,
            resume="allow",
            dir=os.environ.get("WANDB_DIR") or str(facts.home),
            config=facts.settings,
            settings=wandb.Settings(**{name: value for name, value in PRIVATE.items() if name in known}),
        )
        # Steps that are repeated after a crash are no error with an axis of their own.
        self._run.define_metric(STEP)
        self._run.define_metric("*", step_metric=STEP, step_sync=True)
        offline = self._run.settings.mode in ("offline", "dryrun")
        self.place = str(self._run.settings.sync_dir if offline else self._run.url)

    def log(self, points: list[Point]) -> None:
        for point in points:
            self._run.log({**point.values, STEP: point.step, "_timestamp": point.t})

    def end(self, step: int, summary: dict[str, Value], *, succeeded: bool) -> None:
        self._run.summary.update(summary)
        self._run.finish(exit_code=0 if succeeded else 1)
