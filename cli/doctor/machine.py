"""Are there a GPU, room on the disk, a home folder that can be used, and settings that are valid?"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ...training.config.settings import home_folder, load_settings
from ...training.errors import BackpropagateError, describe
from ...training.files.private_folder import take_home
from ...training.hardware.reading import read_hardware
from ...training.runs.device_queue import default_runtime_folder
from ...training.runs.locks import Lock
from ...training.untrusted import shown_path
from ..wording import as_options, words
from .finding import Finding

LITTLE_GB, TOO_LITTLE_GB = 20.0, 2.0
OTHERS = stat.S_IRWXG | stat.S_IRWXO


def gpu_findings() -> Iterator[Finding]:
    try:
        found = read_hardware()
    except BackpropagateError as error:
        yield _of_error("GPU", error)
        return
    for gpu in found.gpus:
        users = len(gpu.processes)
        busy = f", used by {users} process(es)" if users else ""
        yield Finding(
            "GPU",
            "ok",
            f"{gpu.index}: {gpu.name}, {gpu.memory_free_mib} of {gpu.memory_total_mib} MiB free{busy}",
        )
    if not found.gpus:
        yield Finding("GPU", "note", f"{found.no_gpu_reason} {found.cpu.advice}".strip())
    cpu = found.cpu
    yield Finding(
        "CPU",
        "ok",
        f"{cpu.name}, {cpu.physical_cores} cores, {cpu.memory_available_mib} of {cpu.memory_total_mib} MiB "
        "memory free",
    )


def disk_findings() -> Iterator[Finding]:
    cache = Path(os.environ.get("HF_HOME") or "~/.cache/huggingface").expanduser()
    places = {"home": home_folder(), "Hub cache": cache, "temporary files": Path(tempfile.gettempdir())}
    for name, place in places.items():
        there = next(parent for parent in (place, *place.parents) if parent.exists())
        free = shutil.disk_usage(there).free / 1e9
        text = f"{free:.0f} GB free for {name} ({shown_path(place)})"
        if free < TOO_LITTLE_GB:
            yield Finding("disk", "problem", text, "Free some space; `backprop prune` removes ended runs.")
        elif free < LITTLE_GB:
            yield Finding("disk", "note", text, "Large models and their exports need more.")
        else:
            yield Finding("disk", "ok", text)


def home_findings() -> Iterator[Finding]:
    """Whether runs can be kept, privately, on a file system with locks."""
    home = home_folder()
    if not home.is_dir():
        yield Finding("home", "ok", f"{shown_path(home)} does not exist yet; the first run makes it.")
        return
    open_before = os.name != "nt" and bool(home.stat().st_mode & OTHERS)
    try:
        take_home(home)
        _require_writable(home)
        _require_locks(home)
    except BackpropagateError as error:
        yield _of_error("home", error)
        return
    except OSError as error:
        repair = f"Give this user the right to write to {shown_path(home)}, or set BACKPROPAGATE_HOME."
        yield Finding("home", "problem", f"{shown_path(home)} cannot be written: {error.strerror}.", repair)
        return
    taken = "; others could read it, and now cannot" if open_before else ""
    yield Finding("home", "ok", f"{shown_path(home)} is private and can be written{taken}.")


def _require_writable(home: Path) -> None:
    with tempfile.TemporaryFile(dir=home) as file:
        file.write(b"x")


def _require_locks(home: Path) -> None:
    path = home / ".doctor.lock"
    lock = Lock(path)
    if lock.try_acquire():
        lock.release()
    path.unlink(missing_ok=True)


def settings_findings() -> Iterator[Finding]:
    beside = Path.cwd() / ".env"
    if beside.is_file() and beside.parent != home_folder():
        read = f"Only {shown_path(home_folder() / '.env')} is read: a project's file is not trusted."
        yield Finding("settings", "note", f"{shown_path(beside)} is not used.", read)
    try:
        settings = load_settings()
    except BackpropagateError as error:
        yield _of_error("settings", error)
        return
    for note in settings.notes:
        yield Finding("settings", "note", note, "Rename or remove the variable.")
    runtime = settings.runtime_dir or default_runtime_folder()
    yield Finding("settings", "ok", f"valid; the device queue is in {shown_path(runtime)}")
    if settings.python and shutil.which(settings.python) is None:
        repair = "Set BACKPROPAGATE_PYTHON to a Python with backpropagate-mcp[train], or remove it."
        yield Finding("settings", "problem", f"BACKPROPAGATE_PYTHON={settings.python} is no program.", repair)


def _of_error(area: str, error: BackpropagateError) -> Finding:
    record = error.record()
    repair = as_options(describe(record.model_copy(update={"message": ""}), words)).partition("—")[2].strip()
    return Finding(area, "problem", error.message, repair or None)
