"""What a program gets of a run that has ended."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..config.fields import ExportFormat
from ..config.ledger import Ledger
from ..config.results import MultiRunResult, TrainResult
from ..events import Event, Step
from ..runs.folder import RunFolder, RunState, Status


@dataclass(frozen=True)
class TrainingRun:
    """A training that has ended.

    Args:
        result: all that was measured, e.g. the losses on the held-out rows.
        warnings: what the user should know before the adapter is used, e.g. that it is worse than the base.
    """

    run_id: str
    status: Status
    steps: int
    total_steps: int
    losses: list[float]
    adapter_path: Path
    run_folder: Path
    duration_s: float
    result: TrainResult
    warnings: list[str] = field(default_factory=list[str])
    answers: list[dict[str, str]] = field(default_factory=list[dict[str, str]])

    @property
    def first_loss(self) -> float | None:
        return self.losses[0] if self.losses else None

    @property
    def final_loss(self) -> float | None:
        return self.losses[-1] if self.losses else None

    @property
    def eval_loss_before(self) -> float | None:
        """The base model's loss on the held-out rows; None if none were held out."""
        return self.result.eval_loss_before

    @property
    def eval_loss(self) -> float | None:
        """The adapter's loss on the held-out rows; None if none were held out."""
        return self.result.eval_loss

    # --- Names of earlier versions. ---
    @property
    def loss_history(self) -> list[float]:
        """`losses`."""
        return self.losses

    @property
    def output_path(self) -> str:
        """`adapter_path`, or the copy that was asked for, as text."""
        return self.result.output or str(self.adapter_path)

    @property
    def duration_seconds(self) -> float:
        """`duration_s`."""
        return self.duration_s

    @property
    def samples_seen(self) -> int:
        """The rows that were used, held-out ones not counted; each may have been seen several times."""
        return self.result.rows_used - self.result.held_out

    @property
    def metadata(self) -> dict[str, Any]:
        """`result` as a dict."""
        return self.result.model_dump(mode="json")


@dataclass(frozen=True)
class MultiRun:
    """A multi-run that has ended.

    Args:
        adapter_path: the merged adapter.
        result: with the ledger: the score on every task after each run.
        warnings: what the user should know before the adapter is used.
    """

    run_id: str
    status: Status
    adapter_path: Path
    run_folder: Path
    duration_s: float
    result: MultiRunResult
    warnings: list[str] = field(default_factory=list[str])

    @property
    def ledger(self) -> Ledger:
        return self.result.ledger


@dataclass(frozen=True)
class Export:
    """A file or folder that an export wrote.

    Args:
        bytes: its size.
        proof: one sentence for each check of a GGUF.
        quantization: of a GGUF.
    """

    run_id: str
    path: Path
    bytes: int
    proof: list[str]
    format: ExportFormat = "gguf"
    quantization: str | None = None
    duration_s: float = 0.0

    # --- Names of earlier versions. ---
    @property
    def size_mb(self) -> float:
        """`bytes` in MB of 1,048,576."""
        return self.bytes / 2**20

    @property
    def export_time_seconds(self) -> float:
        """`duration_s`."""
        return self.duration_s

    def summary(self) -> str:
        """One line for people."""
        kind = f"{self.format} {self.quantization}" if self.quantization else self.format
        return f"{kind}: {self.path} ({self.size_mb:.1f} MB, {self.duration_s:.1f} s)"


class Losses:
    """Collects the losses of a training while it runs."""

    def __init__(self) -> None:
        self._losses: list[float] = []

    def __call__(self, event: Event) -> None:
        if isinstance(event, Step):
            self._losses.append(event.loss)

    def run(self, run: RunFolder, state: RunState, duration_s: float) -> TrainingRun:
        """The training as it ended."""
        result = state.result
        assert isinstance(result, TrainResult)
        return TrainingRun(
            run_id=run.run_id,
            status=state.status,
            steps=result.steps,
            total_steps=result.total_steps,
            losses=self._losses,
            adapter_path=run.adapter_path,
            run_folder=run.path,
            duration_s=round(duration_s, 2),
            result=result,
            warnings=list(state.warnings),
            answers=[answer.model_dump(exclude_none=True) for answer in result.answers],
        )
