"""The nodes of a job, and the processes of a training on all but the first, where the worker is rank 0."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping

from ..config.specs import Spec, TrainSpec
from ..runs.folder import RunFolder

FIRST_RANK = "BACKPROPAGATE_FIRST_RANK"


def is_shareable(spec: Spec) -> bool:
    """Whether several nodes can share it: a single training, by our own engines."""
    return isinstance(spec, TrainSpec) and spec.training.engine not in ("trl", "unsloth")


def nodes_of(run: RunFolder) -> int:
    """Nodes of the job that this process is; 1 for a run of this machine, also in somebody's job."""
    return 1 if run.state().cluster is None else int(os.environ.get("SLURM_JOB_NUM_NODES", "1"))


def start_on_other_nodes(run: RunFolder, here: int, world: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start the ranks from `here` on, as many on each node, as one step of the job; it ends when they have.

    Args:
        world: the environment variables that say how many they are, and where rank 0 listens.
    """
    size = int(world["WORLD_SIZE"])
    command = [
        *("srun", "--relative=1", f"--nodes={size // here - 1}", f"--ntasks={size - here}"),
        *(f"--ntasks-per-node={here}", "--overcommit", "--cpu-bind=none"),
        *("--kill-on-bad-exit=1", "--input=none", "--export=ALL"),
        *(sys.executable, "-P", "-m", f"{__package__}.rank_of_node", str(run.path)),
    ]
    environment = os.environ | world | {FIRST_RANK: str(here)}
    environment.pop("CUDA_VISIBLE_DEVICES", None)  # of this node
    with run.log_path.open("ab") as log:
        return subprocess.Popen(
            command, cwd=run.path, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
