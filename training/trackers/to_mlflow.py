"""MLflow: a run of an experiment, on the server or in the files that MLFLOW_TRACKING_URI names."""

from __future__ import annotations

import os
import time
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .facts import PROJECT, Facts
from .measures import Point, Value

TAG = "backpropagate.run_id"
METRICS = 1000
"""In one request; MLflow's limit."""
PARAMS = 100
"""Likewise."""


class Mlflow:
    """A run of MLflow. A later attempt continues it: it is found by its tag.

    Raises:
        Exception: whatever MLflow raises, e.g. if its server does not answer.
    """

    def __init__(self, facts: Facts) -> None:
        self.place = os.environ.get("MLFLOW_TRACKING_URI") or _local(facts.home)
        # MLflow refuses files, which it no longer develops, unless this says that they are meant.
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        mlflow: Any = import_module("mlflow")
        self._entities: Any = import_module("mlflow.entities")
        self._client = mlflow.MlflowClient(tracking_uri=self.place)
        experiment = self._experiment()
        found = self._client.search_runs([experiment], f"tags.`{TAG}` = '{facts.run_id}'", max_results=1)
        self._run: str = found[0].info.run_id if found else self._create(experiment, facts)
        if found:
            self._client.update_run(self._run, status="RUNNING")

    def log(self, points: list[Point]) -> None:
        metrics = [
            self._entities.Metric(name, value, int(point.t * 1000), point.step)
            for point in points
            for name, value in point.values.items()
        ]
        for start in range(0, len(metrics), METRICS):
            self._client.log_batch(self._run, metrics=metrics[start : start + METRICS])

    def end(self, step: int, summary: dict[str, Value], *, succeeded: bool) -> None:
        numbers = {name: float(value) for name, value in summary.items() if not isinstance(value, str)}
        self.log([Point(step, time.time(), numbers)])
        for name, value in summary.items():
            if isinstance(value, str):
                self._client.set_tag(self._run, f"backpropagate.{name.removeprefix('final/')}", value)
        self._client.set_terminated(self._run, "FINISHED" if succeeded else "FAILED")

    def _experiment(self) -> str:
        if known := os.environ.get("MLFLOW_EXPERIMENT_ID"):
            return known
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or PROJECT
        found = self._client.get_experiment_by_name(name)
        return found.experiment_id if found else self._client.create_experiment(name)

    def _create(self, experiment: str, facts: Facts) -> str:
        tags = {TAG: facts.run_id}
        run: str = self._client.create_run(experiment, run_name=facts.name, tags=tags).info.run_id
        params = [self._entities.Param(name, str(value)) for name, value in facts.settings.items()]
        for start in range(0, len(params), PARAMS):
            self._client.log_batch(run, params=params[start : start + PARAMS])
        return run


def _local(home: Path) -> str:
    """A database in the home folder; without SQLAlchemy, as in mlflow-skinny, files."""
    if find_spec("sqlalchemy") is None:
        return (home / "mlruns").as_uri()
    return f"sqlite:///{(home / 'mlflow.db').as_posix()}"
