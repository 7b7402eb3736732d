"""What a base model is, whatever its name: hashes of its weights and of its configuration.

A name can come to mean another model: a branch of the Hub moves, a folder is written anew. An adapter is
right on the weights that it was trained on only, so its file carries their hash.

The Hub's cache names files by their SHA-256, so its models cost nothing. The files of a folder are read, in
parallel: about a second for each GB of the largest one.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any, Literal

from ..errors import ModelLoadError, TrainingAbortedError
from ..events import ShouldStop, never_stop
from ..files.atomic_json import read_json
from ..untrusted import shown_path
from .safetensors_files import read_metadata, shards

CHUNK = 16 << 20  # bytes
SHA256 = re.compile(r"[0-9a-f]{64}")
THREADS = 8  # hashing releases the GIL; more do not read faster
WEIGHTS, CONFIG = "base_weights_sha256", "base_config_sha256"
"""Names in the metadata of adapter_model.safetensors, and in provenance.json."""
NOT_COMPUTED = frozenset(
    {
        *("_name_or_path", "_commit_hash", "architectures", "auto_map", "transformers_version"),
        *("dtype", "torch_dtype", "use_cache", "bos_token_id", "eos_token_id", "pad_token_id"),
    }
)
"""Entries of config.json that do not change what a model computes."""


@dataclass(frozen=True)
class BaseIdentity:
    """The content of a base model, as hexadecimal SHA-256."""

    weights: str
    config: str

    def record(self) -> dict[str, str]:
        return {WEIGHTS: self.weights, CONFIG: self.config}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> BaseIdentity | None:
        """The identity in a record; None where it was not known yet."""
        weights, config = record.get(WEIGHTS), record.get(CONFIG)
        return cls(weights, config) if isinstance(weights, str) and isinstance(config, str) else None

    @classmethod
    def of_adapter(cls, adapter: Path) -> BaseIdentity | None:
        """The base that an adapter's folder says it was trained on, if it says.

        Raises:
            ModelLoadError: its weights are not a safetensors file.
        """
        path = adapter / "adapter_model.safetensors"
        return cls.from_record(read_metadata(path)) if path.is_file() else None


def identify_base(folder: Path, should_stop: ShouldStop = never_stop) -> BaseIdentity:
    """The identity of the model in a folder; the names of the folder and of its files play no part.

    Raises:
        ModelLoadError: its files cannot be read.
        TrainingAbortedError: `should_stop` said so.
    """
    digest = partial(_digest, should_stop=should_stop)
    with ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1)) as pool:
        weights = sorted(pool.map(digest, shards(folder)))
    return BaseIdentity(_sha256(weights), _sha256(_computed(folder / "config.json")))


@contextmanager
def identified(folder: Path, should_stop: ShouldStop) -> Generator[Callable[[], BaseIdentity]]:
    """Begin `identify_base`, and give what waits for its result: the body does something else meanwhile."""
    left = Event()
    with ThreadPoolExecutor(1) as pool:
        try:
            yield pool.submit(identify_base, folder, lambda: left.is_set() or should_stop()).result
        finally:
            left.set()


def difference_from(
    trained: BaseIdentity, folder: Path, should_stop: ShouldStop = never_stop
) -> Literal["weights", "config.json"] | None:
    """What of the base in `folder` is not as in the training, or None."""
    now = identify_base(folder, should_stop)
    if now.weights != trained.weights:
        return "weights"
    return "config.json" if now.config != trained.config else None


def _computed(config: Path) -> dict[str, Any]:
    try:
        entries = read_json(config)
    except (OSError, ValueError, RecursionError) as error:
        raise ModelLoadError(
            f"{shown_path(config)} cannot be read: {type(error).__name__}.", cause=error, untrusted=str(error)
        ) from error
    return {name: value for name, value in entries.items() if name not in NOT_COMPUTED}


def _digest(path: Path, should_stop: ShouldStop) -> str:
    known = _name_of_blob(path)
    if known:
        return known
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while data := file.read(CHUNK):
            if should_stop():
                raise TrainingAbortedError("Cancelled while the base model was identified.")
            digest.update(data)
    return digest.hexdigest()


def _name_of_blob(path: Path) -> str | None:
    """The SHA-256 by which the Hub's cache names the file that its snapshots link to."""
    if not path.is_symlink():
        return None
    blob = path.resolve()
    in_cache = blob.parent.name == "blobs" and blob.parent.parent.name.startswith("models--")
    return blob.name if in_cache and SHA256.fullmatch(blob.name) else None


def _sha256(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
