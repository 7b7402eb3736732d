"""Starts workers: detached, so that a run outlives the process that started it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import IO, TypedDict, Unpack

from ..config.settings import ENV_PREFIX, Settings
from ..runs.folder import RunFolder
from ..telemetry import trace_environment
from .torch_allocator import allocator_environment

# Not in the subprocess module of every platform. Hidden and not absent: without a console, Python behind the
# launcher of a virtual environment, and each console program that a worker starts, would open a window.
WINDOWS_DETACHED = 0x08000000 | 0x00000200  # CREATE_NO_WINDOW | CREATE_NEW_PROCESS_GROUP
WINDOWS_BREAKAWAY = 0x01000000  # CREATE_BREAKAWAY_FROM_JOB
HIDDEN = WINDOWS_DETACHED if sys.platform == "win32" else 0
"""Of a process that ends with its parent."""


def spawn_worker(run: RunFolder, settings: Settings, runtime_folder: Path) -> subprocess.Popen[bytes]:
    """Start the worker of a run: detached, without the user's folders on its import path.

    With `-P` and the run folder as working directory, a `torch.py` in the user's data folder is not imported.
    The output of the worker and its libraries goes to worker.log.
    """
    command = worker_command(settings.python or sys.executable, run)
    environment = local_environment(settings, runtime_folder)
    with run.log_path.open("ab") as log:
        return _detached(
            command, cwd=run.path, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )


def spawn_spare(settings: Settings, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start a worker without a run, in no folder of the user's; see `spare.py`. Its stdin is a pipe."""
    return _detached(
        [settings.python or sys.executable, "-P", "-m", f"{__package__}.spare", str(settings.spare_worker_s)],
        cwd=Path(__file__).anchor,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        bufsize=0,
    )


def worker_command(python: str, run: RunFolder) -> list[str]:
    return [python, "-P", "-m", f"{__package__}.main", str(run.path)]


def local_environment(settings: Settings, runtime_folder: Path) -> dict[str, str]:
    """The environment of a worker on this machine."""
    return worker_environment(settings) | {f"{ENV_PREFIX}RUNTIME_DIR": str(runtime_folder)}


def worker_environment(settings: Settings) -> dict[str, str]:
    """The environment of a worker, here or on a cluster, without the folder of the device queue."""
    return os.environ | {
        f"{ENV_PREFIX}HOME": str(settings.home),
        "PYTHONUNBUFFERED": "1",
        "PYTHONUTF8": "1",
        **allocator_environment(),
        **trace_environment(),
    }


class _Options(TypedDict, total=False):
    cwd: Path | str
    env: dict[str, str]
    stdin: int
    stdout: int | IO[bytes]
    stderr: int | IO[bytes]
    bufsize: int


def _detached(command: list[str], **options: Unpack[_Options]) -> subprocess.Popen[bytes]:
    if sys.platform == "win32":
        return _spawn_on_windows(command, **options)
    return subprocess.Popen(command, start_new_session=True, **options)


def _spawn_on_windows(command: list[str], **options: Unpack[_Options]) -> subprocess.Popen[bytes]:
    """Leave the client's job, which kills its children; if that is forbidden, record it for the user."""

    def spawn(flags: int, survives: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([*command, survives], creationflags=flags, **options)

    try:
        return spawn(WINDOWS_DETACHED | WINDOWS_BREAKAWAY, "survives-client")
    except PermissionError:
        return spawn(WINDOWS_DETACHED, "dies-with-client")
