"""A rank on another node of the job: `python -P -m backpropagate.training.worker.rank_of_node RUN_FOLDER`.

What Slurm tells the tasks of a step gives each its place; then it is a rank like those of the first node.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import NoReturn

from ..hardware.devices import CPU, use_device
from ..runs.folder import RunFolder
from ..runs.kinds import device_request
from . import rank
from .nodes import FIRST_RANK


def main() -> NoReturn:
    """Take this task's place among the ranks, and its device."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as rank.py: the worker still has to save with this one
    local = int(os.environ["SLURM_LOCALID"])
    os.environ["RANK"] = str(int(os.environ.pop(FIRST_RANK)) + int(os.environ["SLURM_PROCID"]))
    os.environ["LOCAL_RANK"] = str(local)
    request = device_request(RunFolder(Path(sys.argv[1])).request_now())
    use_device(request.slots[local] if request.queue == "cuda" else CPU)
    rank.main()


if __name__ == "__main__":
    main()
