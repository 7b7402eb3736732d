"""What Slurm's word on a job means for its run.

For a run of this machine, a lock that the worker holds says that it lives. For a job of a cluster nothing
says it but Slurm: a lock on a network file system may outlive its node, or be seen on one node only, and a
worker that is silent need not be dead. So the worker of a job holds no lock. Each attempt has a job of its
own, which is found by its name: the run's id and the attempt's number. While Slurm cannot be asked, nothing
is judged. Who records an end that the worker did not record holds the run's lock, so that only one does.
"""

from __future__ import annotations

from contextlib import suppress

from ..clusters.job_table import JobTable
from ..clusters.slurm import Job
from ..config.specs import Spec, TrainingSpec
from ..errors import ClusterError, RunInterruptedError, RuntimeFailure
from ..next_step import then
from ..untrusted import quoted
from .folder import ENDED, RunFolder, RunState, Status
from .identity import file_is_recent, is_recent, now
from .saved_result import ended_with_result

SUBMITTING_S = 60.0
"""A queued run for which Slurm knows no job yet: its submission is under way for this long."""
UNKNOWN = Job("", "")
"""Of a run without a job: Slurm has forgotten it, or it was never submitted."""
STOPPING_S = 330.0
"""For a worker to end its step and to save: longer than its own watcher waits."""

REASONS = {
    "TIMEOUT": "it reached its time limit",
    "DEADLINE": "it reached its deadline",
    "OUT_OF_MEMORY": "its memory ran out",
    "NODE_FAIL": "its node failed",
    "BOOT_FAIL": "its node could not start",
    "PREEMPTED": "another job was given its node",
    "REVOKED": "another cluster took it",
    "CANCELLED": "it was cancelled by Slurm's own commands",
    "FAILED": "its worker exited unexpectedly",
    "COMPLETED": "its worker exited unexpectedly",
}
HINTS = {
    "TIMEOUT": "A longer `time` in clusters.toml gives it more.",
    "OUT_OF_MEMORY": "Give more `memory` in clusters.toml, or use a smaller batch_size or max_seq_length.",
}


def cluster_of(spec: Spec) -> str | None:
    """The cluster that is to carry a run out: trainings can be, other kinds run where they are asked for."""
    return spec.training.on if isinstance(spec, TrainingSpec) else None


def job_name(run_id: str, attempt: int) -> str:
    """The name of the job of an attempt, by which it is found again."""
    return f"{run_id}.{attempt}"


def job_of(run: RunFolder, state: RunState, table: JobTable) -> Job | None:
    """The job of the current attempt; None if nothing can be said of it."""
    if state.cluster is None or state.status in ENDED:
        return None
    submitted_to, name = state.cluster.slurm, job_name(run.run_id, state.attempt)
    if submitted_to is not None and not table.knows(submitted_to):
        return None
    if job := table.find(name):
        return job
    began = state.queued_at or state.created_at
    if state.status is Status.QUEUED and is_recent(began, SUBMITTING_S):
        return None
    return (table.find_past(name, began) if submitted_to else None) or UNKNOWN


def is_gone(job: Job) -> bool:
    """Whether the job has ended, or Slurm does not know it any more."""
    return job.ended or job is UNKNOWN


def with_job(state: RunState, job: Job) -> RunState:
    """The state with what Slurm says of its job, for readers."""
    assert state.cluster is not None
    seen = {"job_id": job.id, "waits_for": job.reason if job.state == "PENDING" else None}
    return state.model_copy(update={"cluster": state.cluster.model_copy(update=seen)})


def end_if_deaf(run: RunFolder, job: Job, table: JobTable) -> None:
    """End the job of a run that was asked to stop long ago, as its worker cannot."""
    if run.cancel_requested() and not file_is_recent(run.control_path, STOPPING_S):
        with suppress(ClusterError):
            table.end(job.id)


def ended_by(run: RunFolder, state: RunState, job: Job) -> RunState:
    """The end of a run whose job has ended without recording one."""
    if job.id:
        state = with_job(state, job)
    happened = _what_happened(state, job)
    if state.result is not None:
        missing = "The adapter was saved before; a copy or answers may be missing."
        return ended_with_result(state, f"{happened} {missing}")
    if run.cancel_requested():
        return state.model_copy(update={"status": Status.CANCELLED, "ended_at": now()})
    never_began = state.pid is None and job.state in {"FAILED", "COMPLETED"}
    error = _could_not_start(state, job) if never_began else _interrupted(run, happened, job)
    status = Status.FAILED if never_began else Status.INTERRUPTED
    return state.model_copy(update={"status": status, "ended_at": now(), "error": error.record()})


def _could_not_start(state: RunState, job: Job) -> RuntimeFailure:
    return RuntimeFailure(
        f"The run's worker could not start ({_shown(state, job)}).",
        hint="worker.log in the run folder says why; `python` in clusters.toml names the nodes' Python.",
    )


def _interrupted(run: RunFolder, happened: str, job: Job) -> RunInterruptedError:
    known = HINTS.get(job.state, "worker.log in the run folder may say more.")
    return RunInterruptedError(
        happened,
        hint=f"{known} Resuming submits it again; it continues from its last checkpoint, if any.",
        next=then("resume", run_id=run.run_id),
    )


def _what_happened(state: RunState, job: Job) -> str:
    if not job.id:
        return f"Slurm knows no job of this run ({_shown(state, job)})."
    return f"The run's job ended: {REASONS.get(job.state, job.state)} ({_shown(state, job)})."


def _shown(state: RunState, job: Job) -> str:
    assert state.cluster is not None
    name = quoted(state.cluster.name)
    return f"job {job.id} of {name}, {job.state}" if job.id else name
