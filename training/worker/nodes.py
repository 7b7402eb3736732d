"""The nodes of a job, and the processes of a training on all but the first, where the worker is rank 0."""

from __future__ import annotations

import os
import subprocess
import sys

from ..runs.folder import RunFolder

FIRST_RANK = "BACKPROPAGATE_FIRST_RANK"


def nodes_of(run: RunFolder) -> int:
    """Nodes of the job that this process is; 1 for a run of this machine, also in somebody's job."""
    return 1 if run.state().cluster is None else int(os.environ.get("SLURM_JOB_NUM_NODES", "1"))


def start_on_other_nodes(
    run: RunFolder, here: int, size: int, host: str, port: int
) -> subprocess.Popen[bytes]:
    """Start the ranks from `here` on, as many on each node, as one step of the job; it ends when they have.

    Args:
        host, port: where rank 0 listens.
    """
    command = [
        *("srun", "--relative=1", f"--nodes={size // here - 1}", f"--ntasks={size - here}"),
        *(f"--ntasks-per-node={here}", "--overcommit", "--cpu-bind=none"),
        *("--kill-on-bad-exit=1", "--input=none", "--export=ALL"),
        *(sys.executable, "-P", "-m", f"{__package__}.rank_of_node", str(run.path)),
    ]
    environment = os.environ | {
        FIRST_RANK: str(here),
        "LOCAL_WORLD_SIZE": str(here),
        "WORLD_SIZE": str(size),
        "MASTER_ADDR": host,
        "MASTER_PORT": str(port),
    }
    environment.pop("CUDA_VISIBLE_DEVICES", None)  # of this node
    with run.log_path.open("ab") as log:
        return subprocess.Popen(
            command, cwd=run.path, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
