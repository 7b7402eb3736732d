"""What a job runs, and what it inherits.

The job has the environment of a login of the user, as Slurm makes it on the node, and the variables that are
named here: sbatch takes their values from its own environment, so that neither its command line nor the
script has them.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from typing import Literal

from ..config.environment import ENV_PREFIX
from .description import Cluster
from .hosts import Hosts

INHERITED = {
    *("PATH", "LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONUNBUFFERED", "PYTHONUTF8", "VIRTUAL_ENV"),
    *("LANG", "LC_ALL", "SLURM_CONF", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "HUGGING_FACE_HUB_TOKEN"),
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"),
    *("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR"),
    *("TRACEPARENT", "TRACESTATE"),
}
INHERITED_BEGINNINGS = (ENV_PREFIX, "HF_", "WANDB_", "MLFLOW_", "TRACKIO_", "OTEL_", "NCCL_")
NOT_INHERITED = {f"{ENV_PREFIX}RUNTIME_DIR", f"{ENV_PREFIX}PYTHON"}
"""Of this machine: the device queue and its interpreter."""


def inherited(names: Iterable[str], cluster: Cluster | Hosts) -> list[str]:
    """Those of the variables that the job gets, or the processes on given hosts."""
    more = set(cluster.environment)
    return sorted(name for name in names if name in more or _is_inherited(name))


def _is_inherited(name: str) -> bool:
    known = name in INHERITED or name.startswith(INHERITED_BEGINNINGS)
    return known and name not in NOT_INHERITED and name.isidentifier()


def script_of(command: Sequence[str]) -> str:
    """The batch script of one command."""
    return f"#!/bin/sh\nexec {shlex.join(command)}\n"


def options_of(cluster: Cluster, gpus: int | Literal["all"] | None = "all") -> list[str]:
    """What the user says of the cluster, as options of sbatch.

    Args:
        gpus: of a node that the run uses; None: it trains on the CPU.
    """
    given = {
        name.replace("_", "-"): getattr(cluster, name)
        for name in ("partition", "account", "qos", "time", "constraint", "reservation", "nodelist")
    }
    given |= {"exclude": cluster.exclude, "mail-type": cluster.mail_type, "mail-user": cluster.mail_user}
    given |= {"nodes": cluster.nodes, "gpus-per-node": _gpus(cluster, gpus)}
    given |= {"cpus-per-task": cluster.cpus, "mem": cluster.memory}
    return [f"--{name}={value}" for name, value in given.items() if value is not None]


def _gpus(cluster: Cluster, wanted: int | Literal["all"] | None) -> str | None:
    """One GPU is not asked for by name where the cluster is not said to have any."""
    if wanted == "all":
        wanted = cluster.gpus or 1
    if wanted is None or (wanted == 1 and not cluster.gpus and not cluster.gpu_type):
        return None
    return f"{cluster.gpu_type}:{wanted}" if cluster.gpu_type else str(wanted)
