"""TensorBoard: event files, written by TensorBoard's own writer, without torch or TensorFlow."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from .facts import Facts
from .measures import Point, Value


class TensorBoard:
    """A folder of event files; each attempt of a run adds one."""

    def __init__(self, facts: Facts) -> None:
        logs = os.environ.get("TENSORBOARD_LOGGING_DIR")
        folder = (Path(logs) if logs else facts.home / "tensorboard") / facts.name
        self.place = str(folder)
        self._event = import_module("tensorboard.compat.proto.event_pb2")
        self._summary = import_module("tensorboard.compat.proto.summary_pb2")
        hparams: Any = import_module("tensorboard.plugins.hparams.summary_v2")
        writer: Any = import_module("tensorboard.summary.writer.event_file_writer")
        self._writer = writer.EventFileWriter(self.place, flush_secs=5)
        self._add(0, time.time(), hparams.hparams_pb(facts.settings, trial_id=facts.run_id))
        self._continued = False

    def log(self, points: list[Point]) -> None:
        for point in points:
            if not self._continued:
                self._replace_from(point)
            self._add(point.step, point.t, self._scalars(point.values))
        self._writer.flush()

    def end(self, step: int, summary: dict[str, Value], *, succeeded: bool) -> None:
        numbers = {name: value for name, value in summary.items() if isinstance(value, int | float)}
        texts = {name: value for name, value in summary.items() if isinstance(value, str)}
        self._add(step, time.time(), self._scalars(numbers))
        for name, value in texts.items():
            self._add(step, time.time(), self._text(name, value))
        self._writer.close()

    def _replace_from(self, point: Point) -> None:
        """Later points of an earlier attempt, after the checkpoint, are not to be shown."""
        self._continued = True
        if point.step > 1:
            start = self._event.SessionLog(status=self._event.SessionLog.START)
            self._writer.add_event(self._event.Event(wall_time=point.t, step=point.step, session_log=start))

    def _scalars(self, values: Mapping[str, float]) -> Any:
        each = [self._summary.Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
        return self._summary.Summary(value=each)

    def _text(self, tag: str, text: str) -> Any:
        metadata: Any = import_module("tensorboard.plugins.text.metadata")
        tensors: Any = import_module("tensorboard.util.tensor_util")
        value = self._summary.Summary.Value(
            tag=tag,
            metadata=metadata.create_summary_metadata(tag, ""),
            tensor=tensors.make_tensor_proto(text),
        )
        return self._summary.Summary(value=[value])

    def _add(self, step: int, t: float, summary: Any) -> None:
        self._writer.add_event(self._event.Event(wall_time=t, step=step, summary=summary))
