"""Submits the attempt of a run as a job of a cluster: Slurm's counterpart of `spawn_worker`."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from ..clusters.description import Cluster, cluster_named
from ..clusters.hosts import Hosts
from ..clusters.job_script import inherited, options_of, script_of
from ..clusters.slurm import cluster_name, submit
from ..config.settings import Settings
from ..config.specs import Spec, TrainingSpec
from ..errors import ClusterError, StateError
from ..events import Phase
from ..runs.cluster_job import job_name
from ..runs.folder import RunFolder
from ..runs.kinds import gpus_of
from ..untrusted import quoted
from .nodes import is_shareable
from .spawn import worker_command, worker_environment

PROTOCOL = [
    "--no-requeue",  # a run is resumed by its user, and each attempt has a job of its own
    "--output=worker.log",  # in the run folder; no path, since sbatch expands `%` in it
    "--open-mode=append",
    "--input=/dev/null",
    "--signal=B:USR1@60",  # a minute before the time limit, or up to two; see job_watch.py
]


def require_cluster(name: str, settings: Settings) -> None:
    """Check what can be checked before there is a run.

    Raises:
        InputError, InvalidSettingError: there is no such cluster, or its description is wrong.
        ClusterError: its Slurm cannot be reached from here.
    """
    if isinstance(cluster_named(settings.home, name), Cluster):
        cluster_name()


def submit_job(run: RunFolder, settings: Settings) -> None:
    """Submit a queued run. Its state names the Slurm first, so that an interrupted submission is told apart.

    Raises:
        ClusterError: the cluster refuses it.
        InputError, InvalidSettingError: as `require_cluster`.
    """
    state = run.state()
    if state.cluster is None:
        raise StateError(f"Run {run.run_id} is for no cluster.")
    name = state.cluster.name
    cluster = cluster_named(settings.home, name)
    if isinstance(cluster, Hosts):
        raise StateError(
            f"Run {run.run_id} was a job of Slurm, and {quoted(name)} is now a list of hosts.",
            hint="Train again, or describe the Slurm in clusters.toml.",
        )
    submitted = state.cluster.model_copy(update={"slurm": cluster_name()})
    message = _waiting(name, cluster, run.request_now())
    run.event_log().append(Phase(phase="waiting", message=message))
    run.write_state(state.model_copy(update={"cluster": submitted}))
    environment = worker_environment(settings)
    options = _options(run, state.attempt, cluster, environment)
    python = cluster.python or settings.python or sys.executable
    try:
        submit(options, script_of(worker_command(python, run)), environment)
    except ClusterError as error:
        raise ClusterError(
            f"Cluster {quoted(name)} takes no job: {error.message}",
            hint=error.hint,
            cause=error,
            retryable=error.retryable,
            untrusted=error.untrusted,
        ) from error


def _options(run: RunFolder, attempt: int, cluster: Cluster, names: Iterable[str]) -> list[str]:
    return [
        *PROTOCOL,
        f"--job-name={job_name(run.run_id, attempt)}",
        f"--chdir={run.path}",
        f"--export={','.join(inherited(names, cluster))}",
        *_wanted(run.request_now(), cluster),
    ]


def _wanted(spec: Spec, cluster: Cluster) -> list[str]:
    """What the run can use of the cluster; a CPU uses no GPU."""
    on_cpu = isinstance(spec, TrainingSpec) and spec.training.device == "cpu"
    used = cluster if is_shareable(spec) else cluster.model_copy(update={"nodes": None})
    return options_of(used, None if on_cpu else gpus_of(spec))


def _waiting(name: str, cluster: Cluster, spec: Spec) -> str:
    if (cluster.nodes or 1) > 1 and not is_shareable(spec):
        return f"waiting for one node of {quoted(name)}: several share a single training by our own engines"
    return f"waiting for {quoted(name)}"
