"""A run as a fine-tuning job of the API, and its result as a checkpoint."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any

from ...training.config.results import TrainingResult
from ...training.config.specs import JobRecord, TrainingSpec, TrainSpec
from ...training.errors import ErrorRecord
from ...training.runs.folder import ENDED, RunFolder, Status
from ...training.runs.store import RunStore
from ...training.runs.view import RunView, view
from ...training.untrusted import shown_path
from .names import has_model, job_id, tuned_name
from .pages import Object

STATUSES = {
    Status.QUEUED: "queued",
    Status.RUNNING: "running",
    Status.COMPLETED: "succeeded",
    Status.FAILED: "failed",
    Status.INTERRUPTED: "failed",
    Status.CANCELLED: "cancelled",
}
RESULTS = "file-results-"
ORGANISATION = "local"


def job_object(run: RunFolder, store: RunStore) -> Object:
    """The job of a training.

    Raises:
        RunFolderError: the run cannot be read.
    """
    spec, found = run.spec(), view(run, store.observe(run))
    assert isinstance(spec, TrainingSpec)
    asked = _record(spec)
    hyperparameters = _hyperparameters(asked, run.plan() or {})
    ended = found.status in ENDED
    return {
        "id": job_id(run.run_id),
        "object": "fine_tuning.job",
        "created_at": created_at(found.created_at),
        "finished_at": created_at(found.ended_at) if found.ended_at else None,
        "estimated_finish": int(time.time() + found.eta_s) if found.eta_s is not None else None,
        "status": _status(found),
        "model": spec.model.name,
        "fine_tuned_model": tuned_name(run.run_id, spec) if ended and has_model(run) else None,
        "training_file": asked.training_file,
        "validation_file": asked.validation_file,
        "hyperparameters": hyperparameters,
        "method": {"type": "supervised", "supervised": {"hyperparameters": hyperparameters}},
        "seed": spec.training.seed,
        "trained_tokens": _trained_tokens(found),
        "result_files": [f"{RESULTS}{run.run_id}"] if ended and found.step else [],
        "error": _error(found),
        "integrations": [],
        "metadata": asked.metadata,
        "organization_id": ORGANISATION,
    }


def checkpoint_object(run: RunFolder, store: RunStore) -> Object | None:
    """What a job has delivered; None before that. A run's own checkpoints only serve to resume it."""
    found = view(run, store.observe(run))
    if found.status not in ENDED or not has_model(run):
        return None
    return {
        "id": f"ftckpt-{run.run_id}",
        "object": "fine_tuning.job.checkpoint",
        "created_at": created_at(found.ended_at or found.created_at),
        "fine_tuned_model_checkpoint": tuned_name(run.run_id, run.spec()),
        "fine_tuning_job_id": job_id(run.run_id),
        "step_number": found.step,
        "metrics": {
            name: value
            for name, value in (
                ("step", found.step),
                ("train_loss", found.loss),
                ("full_valid_loss", found.eval_loss),
            )
            if value is not None
        },
    }


def created_at(moment: str) -> int:
    """A time of a run as seconds since 1970."""
    return int(datetime.fromisoformat(moment).timestamp())


def _status(found: RunView) -> str:
    checking = found.status is Status.QUEUED and (found.phase or "").startswith("checking")
    return "validating_files" if checking else STATUSES[found.status]


def _record(spec: TrainingSpec) -> JobRecord:
    """What the job said; of a run that another door started, its data in place of a file's id."""
    if isinstance(spec, TrainSpec) and spec.job is not None:
        return spec.job
    sources = [data.source for data in spec.datasets]
    names = [name for source in sources for name in ([source] if isinstance(source, str) else source or [])]
    return JobRecord(training_file=", ".join(map(shown_path, names))[:512])


def _hyperparameters(asked: JobRecord, plan: dict[str, Any]) -> Object:
    """As they were asked for, or once that is decided, as they are."""
    training: dict[str, Any] = plan.get("training") or {}
    epochs = training.get("epochs")
    decided = {
        "n_epochs": int(epochs) if isinstance(epochs, float) and epochs.is_integer() else epochs,
        "batch_size": training.get("batch_size"),
        "learning_rate_multiplier": 1.0 if training else None,
    }
    wanted = {name: asked.asked.get(name, "auto") for name in decided}
    return {
        name: decided[name] if value == "auto" and decided[name] is not None else value
        for name, value in wanted.items()
    }


def _trained_tokens(found: RunView) -> int | None:
    """Tokens of the rows that the steps went through: of each pass, all that are trained on."""
    result = found.result
    if not isinstance(result, TrainingResult) or result.packing is None:
        return None
    return round(result.packing.tokens * result.steps / max(1, result.packing.steps_per_epoch))


def _error(found: RunView) -> Object | None:
    if found.error is None or STATUSES[found.status] != "failed":
        return None
    return error_object(found.error)


def error_object(error: ErrorRecord) -> Object:
    """Why a job failed."""
    of_data = error.code.startswith("INPUT_DATASET")
    message = f"{error.message} {error.hint}" if error.hint else error.message
    code = "invalid_training_file" if of_data else error.code
    return {"code": code, "message": message, "param": "training_file" if of_data else None}
