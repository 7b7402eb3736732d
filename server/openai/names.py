"""The ids of jobs and the names of tuned models, both made of the id of a run."""

from __future__ import annotations

from http import HTTPStatus
from pathlib import Path

from ...training.config.specs import TRAININGS, AnySpec, TrainingSpec, TrainSpec
from ...training.errors import RunNotFoundError
from ...training.models.model_folder import ADAPTER_FILES
from ...training.models.presets import looks_like_path
from ...training.runs.folder import RunFolder
from ...training.runs.identity import is_run_id
from ...training.runs.store import RunStore
from ...training.untrusted import quoted
from .errors import ApiError

JOB = "ftjob-"
TUNED = "ft:"


def job_id(run_id: str) -> str:
    return f"{JOB}{run_id}"


def run_of_job(given: str, store: RunStore) -> RunFolder:
    """The run of a job.

    Raises:
        ApiError: the caller has no job with this id.
    """
    run = _training(given.removeprefix(JOB), store) if given.startswith(JOB) else None
    if run is None:
        said = f"There is no fine-tuning job {quoted(given)}."
        raise ApiError(HTTPStatus.NOT_FOUND, said, "fine_tune_not_found", "fine_tuning_job_id")
    return run


def tuned_name(run_id: str, spec: AnySpec) -> str:
    """`ft:<base>:<suffix>:<run>`; the suffix may be empty."""
    base = spec.subject
    base = Path(base).name if looks_like_path(base) else base
    suffix = spec.job.suffix if isinstance(spec, TrainSpec) and spec.job else None
    return f"{TUNED}{base.replace(':', '-')}:{(suffix or '').replace(':', '-')}:{run_id}"


def run_of_model(given: str, store: RunStore) -> RunFolder:
    """The run that trained a model.

    Raises:
        ApiError: the caller has no tuned model of this name.
    """
    run = _training(given.rpartition(":")[2], store) if given.startswith(TUNED) else None
    if run is None or tuned_name(run.run_id, run.spec()) != given or not has_model(run):
        raise no_model(given)
    return run


def has_model(run: RunFolder) -> bool:
    """Whether a training has left an adapter, whole or stopped early."""
    return (run.adapter_path / ADAPTER_FILES[0]).is_file()


def no_model(given: str) -> ApiError:
    said = f"There is no model {quoted(given)}. The list of models has those that can be used."
    return ApiError(HTTPStatus.NOT_FOUND, said, "model_not_found", "model")


def is_training(run: RunFolder) -> bool:
    """Whether a run is a job; raises RunFolderError if it cannot be read."""
    return run.state().kind in TRAININGS


def _training(run_id: str, store: RunStore) -> RunFolder | None:
    """The training with exactly this id."""
    if not is_run_id(run_id):
        return None
    try:
        run = store.find(run_id)
    except RunNotFoundError:
        return None
    return run if run.run_id == run_id and isinstance(run.spec(), TrainingSpec) else None
