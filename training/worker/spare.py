"""A worker without a run: `python -P -m backpropagate.training.worker.spare SECONDS`.

Imports what a training needs before its first step, and then becomes the worker of the run that a line on its
stdin names. It ends with its stdin, and so with the process that started it, and when no run has come for
SECONDS. Until it has a run it reads nothing of the home, and holds no lock, no slot and no memory of a GPU.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from importlib import import_module
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import NoReturn

from ..hardware.devices import cuda_has_started
from ..runs.folder import RunFolder
from . import main as worker
from .context import use_threads
from .output_file import write_output_to

AHEAD = (
    "transformers.models.auto.tokenization_auto",
    "transformers.modeling_utils",  # with torch's compiler
    "..engine.planner",
    "..engine.open_model",
    "..engine.packed.engine",
    ".train",
    ".provenance",
    ".save_adapter",
)
"""Not peft: it imports bitsandbytes, which starts CUDA's driver."""


def main() -> int:
    """Wait for a run, and execute it."""
    environment = dict(os.environ)
    lines: SimpleQueue[bytes] = SimpleQueue()
    threading.Thread(target=_listen, args=(lines,), daemon=True, name="stdin").start()
    worker.lower_priority()
    import_ahead()
    if cuda_has_started():
        _leave(1)  # another library did it: too late to choose the run's device
    try:
        line = lines.get(timeout=float(sys.argv[1]))
    except Empty:
        _leave()
    given = json.loads(line)
    _become_worker(RunFolder(Path(given["run"])), environment | given["environment"])
    return worker.main()


def import_ahead() -> None:
    """Import what a training imports, with the threads that it has by default."""
    use_threads(None)
    for name in AHEAD:
        import_module(name, __package__)


def _listen(lines: SimpleQueue[bytes]) -> None:
    """Take one line; without a buffer, since Python aborts at its end when a thread waits in one."""
    line = b""
    while not line.endswith(b"\n"):
        part = os.read(0, 4096)
        if not part:
            _leave()
        line += part
    lines.put(line)


def _leave(code: int = 0) -> NoReturn:
    os._exit(code)  # also in the middle of an import, or of the other thread's read


def _become_worker(run: RunFolder, environment: dict[str, str]) -> None:
    """Be as `spawn_worker` starts one; libraries have set variables that the run may set otherwise."""
    os.environ.clear()
    os.environ.update(environment)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    write_output_to(run.log_path)
    os.chdir(run.path)
    sys.argv = [str(worker.__file__), str(run.path), *sys.argv[2:]]


if __name__ == "__main__":
    sys.exit(main())
