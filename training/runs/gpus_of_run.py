"""The GPUs that a run works on, as they are now."""

from __future__ import annotations

import psutil

from ..errors import GpuError, GpuNotAvailableError
from ..hardware.gpu import GpuReading, read_gpus
from .cluster_job import cluster_of
from .folder import RunFolder, Status
from .identity import same_host
from .kinds import device_request


def gpus_of_run(run: RunFolder) -> list[GpuReading]:
    """Those on which its processes hold memory; none if that cannot be told.

    Raises:
        RunFolderError: the run cannot be read.
    """
    state = run.state()
    if state.status is not Status.RUNNING or not same_host(state.host):
        return []
    try:
        spec = run.request_now()
        request = device_request(spec)
        gpus = read_gpus().gpus if request.queue == "cuda" else []
    except (GpuError, GpuNotAvailableError):
        return []  # these numbers are beside the point of whoever asks; `gpu_status` says what is wrong
    possible = [gpu for gpu in gpus if gpu.uuid in request.slots]
    pids = _processes_of(state.pid)
    held = [gpu for gpu in possible if any(process.pid in pids for process in gpu.processes)]
    # In a container the driver tells other process ids; a run on a cluster may have none here.
    is_here = cluster_of(spec) is None and len(possible) == request.at_once
    return held or (possible if is_here else [])


def _processes_of(pid: int | None) -> set[int | None]:
    """A worker and those that share its training."""
    try:
        return {pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))}
    except psutil.Error:
        return {pid}
