"""What can be asked or exported: the trainings that have an adapter."""

from __future__ import annotations

from collections.abc import Collection

from ..training.config.specs import TRAININGS
from ..training.runs.folder import Status
from ..training.service import TrainingService

SHOWN = 50


async def trained_runs(service: TrainingService, kinds: Collection[str] = TRAININGS) -> list[dict[str, str]]:
    """Id and model of the newest completed runs of these kinds."""
    runs, _ = await service.list(Status.COMPLETED, 4 * SHOWN)
    found = [run for run in runs if run.kind in kinds]
    return [{"run_id": run.run_id, "model": run.model} for run in found[:SHOWN]]
