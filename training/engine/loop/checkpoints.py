"""Checkpoints of a run: `step-000040/` folders that are whole, checked and few.

A folder appears only when it is complete. Its manifest holds the hash of each file, so a damaged checkpoint
is noticed and the one before it used. Files are safetensors and JSON, never pickle.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, cast

from ...files.atomic_folder import write_files
from ...untrusted import quoted

MANIFEST = "manifest.json"
FORMAT_VERSION = 1


class Checkpoints:
    """The checkpoints in a folder. Besides the best one, the newest `keep` good ones stay."""

    def __init__(self, folder: Path, keep: int = 2) -> None:
        self.folder = folder
        self.keep = keep

    def path(self, step: int) -> Path:
        return self.folder / f"step-{step:06d}"

    def save(self, step: int, files: Mapping[str, bytes], *, best_step: int | None = None) -> Path:
        """Store a checkpoint, then delete the ones that are not needed any more.

        Raises:
            DiskFullError: the disk is full; the checkpoints before this one are untouched.
        """
        manifest = {
            "format_version": FORMAT_VERSION,
            "step": step,
            "files": {
                name: {"bytes": len(content), "sha256": sha256(content).hexdigest()}
                for name, content in files.items()
            },
        }
        content = json.dumps(manifest, indent=1).encode()
        write_files(self.path(step), {**files, MANIFEST: content})
        self._rotate(best_step)
        return self.path(step)

    def steps(self) -> list[int]:
        """The steps that have a checkpoint, good or not, oldest first."""
        found = [path.name.removeprefix("step-") for path in self.folder.glob("step-*")]
        return sorted(int(number) for number in found if number.isdigit())

    def newest_good(self) -> tuple[int | None, list[str]]:
        """The newest step whose checkpoint is whole, and a sentence about each newer one that is not."""
        damaged: list[str] = []
        for step in reversed(self.steps()):
            reason = damage(self.path(step))
            if reason is None:
                return step, damaged
            damaged.append(f"The checkpoint of step {step} is damaged ({reason}); the one before it is used.")
        return None, damaged

    def read(self, step: int, name: str) -> bytes:
        """One file of a checkpoint."""
        return (self.path(step) / name).read_bytes()

    def _rotate(self, best_step: int | None) -> None:
        good = 0
        for step in reversed(self.steps()):
            if good >= self.keep and step != best_step:
                shutil.rmtree(self.path(step), ignore_errors=True)
            elif damage(self.path(step)) is None:
                good += 1


def damage(folder: Path) -> str | None:
    """What is wrong with a checkpoint, or None if every file is as its manifest says."""
    try:
        for name, size, digest in _manifest_entries(folder):
            content = (folder / name).read_bytes()
            if len(content) != size:
                return f"{quoted(name)} has {len(content)} bytes, not {size}"
            if sha256(content).hexdigest() != digest:
                return f"the content of {quoted(name)} has changed"
    except FileNotFoundError as error:
        return f"{quoted(Path(error.filename).name)} is missing"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{MANIFEST} cannot be read: {type(error).__name__}"
    return None


def _manifest_entries(folder: Path) -> Iterator[tuple[str, int, str]]:
    manifest = json.loads((folder / MANIFEST).read_text("utf-8"))
    files = cast("dict[str, dict[str, Any]]", manifest["files"])
    for name, entry in files.items():
        yield Path(name).name, entry["bytes"], entry["sha256"]
