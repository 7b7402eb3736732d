"""Is Python what it should be, and torch what the driver needs?"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import NamedTuple

from ...training.config.settings import load_settings
from ...training.errors import BackpropagateError
from ...training.hardware.gpu import GpuReadings, read_gpus
from ...training.untrusted import one_line
from .finding import Finding

TRAIN = ("torch", "transformers", "peft", "datasets", "accelerate", "tokenizers", "safetensors")
OLDEST_PYTHON = (3, 11)
TORCH_S = 40.0
"""Seconds for a first import of torch from a slow disk."""

ASK_TORCH = """
import json, torch
cuda = torch.cuda
on = cuda.is_available()
print(json.dumps({
    "version": torch.__version__,
    "cuda": torch.version.cuda,
    "usable": on,
    "kernels": cuda.get_arch_list() if on else [],
    "cards": ["sm_%d%d" % cuda.get_device_capability(n) for n in range(cuda.device_count())] if on else [],
}))
"""


class Torch(NamedTuple):
    """What torch says of itself.

    Args:
        cuda: the CUDA that it was built for; None for a build without.
        usable: whether it sees a GPU.
        kernels: the architectures that it has code for.
        cards: the architecture of each GPU.
    """

    version: str
    cuda: str | None
    usable: bool
    kernels: list[str]
    cards: list[str]


def python_findings() -> Iterator[Finding]:
    here = f"{platform.python_version()} ({sys.executable}) on {platform.platform()}"
    if sys.version_info < OLDEST_PYTHON or sys.maxsize < 2**32:
        yield Finding("Python", "problem", here, "Install a 64-bit Python 3.11 or newer.")
    else:
        yield Finding("Python", "ok", here)
    missing = [name for name in TRAIN if _version(name) is None]
    if missing:
        yield Finding(
            "packages",
            "problem",
            f"Not installed: {', '.join(missing)}. Nothing can be trained.",
            'pip install "backpropagate-mcp[train]"',
        )
    else:
        yield Finding("packages", "ok", ", ".join(f"{name} {_version(name)}" for name in TRAIN))


def torch_findings() -> Iterator[Finding]:
    """Whether torch and the driver fit together; asked in a process of its own."""
    if _version("torch") is None:
        return
    done = subprocess.run(
        [_python_of_workers(), "-P", "-c", ASK_TORCH],
        capture_output=True,
        text=True,
        timeout=TORCH_S,
        check=False,
    )
    if done.returncode:
        said = one_line(done.stderr.strip().rpartition("\n")[2], 300)
        again = "Install it again: pip install --force-reinstall torch"
        yield Finding("torch", "problem", f"It cannot be imported: {said}", again)
        return
    try:
        readings = read_gpus()
    except BackpropagateError:
        readings = GpuReadings([])
    yield fit_of(Torch(**json.loads(done.stdout.strip().rpartition("\n")[2])), readings)


def _python_of_workers() -> str:
    with suppress(BackpropagateError):
        return load_settings().python or sys.executable
    return sys.executable


def fit_of(torch: Torch, readings: GpuReadings) -> Finding:
    """Whether this torch can use these GPUs."""
    built = f"torch {torch.version}, built for {f'CUDA {torch.cuda}' if torch.cuda else 'no CUDA'}"
    driver = f"driver {readings.driver_version} offers CUDA {readings.cuda_version}"
    if not readings.gpus:
        return Finding("torch", "ok", f"{built}; there is no NVIDIA GPU for it.")
    if torch.cuda is None and "+rocm" not in torch.version:
        repair = (
            f"Install a build for CUDA {readings.cuda_version} or older: see https://pytorch.org/get-started"
        )
        return Finding("torch", "problem", f"{built}, but there is an NVIDIA GPU ({driver}).", repair)
    if _number(torch.cuda) > _number(readings.cuda_version):
        repair = "Update the driver, or install a build of torch for the CUDA that it offers."
        return Finding("torch", "problem", f"{built}, but the {driver}.", repair)
    if not torch.usable:
        repair = "Check CUDA_VISIBLE_DEVICES, and that this process may use the GPU (container, permissions)."
        return Finding("torch", "problem", f"{built}; it sees no GPU, though the {driver}.", repair)
    foreign = [card for card in torch.cards if not _has_code(card, torch.kernels)]
    if foreign:
        repair = "Install a build of torch that has code for it: see https://pytorch.org/get-started"
        return Finding("torch", "problem", f"{built}; it has no code for {', '.join(foreign)}.", repair)
    return Finding("torch", "ok", f"{built}; it can use {len(torch.cards)} GPU(s); {driver}.")


def _has_code(card: str, kernels: list[str]) -> bool:
    """Code of the same generation runs on later cards of it."""
    return any(kernel == card or (kernel[:-1] == card[:-1] and kernel <= card) for kernel in kernels)


def _number(text: str | None) -> tuple[int, ...]:
    return tuple(int(part) for part in (text or "0").split(".") if part.isdecimal())


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
