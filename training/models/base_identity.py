"""What a base model is, whatever its name: hashes of its weights and of its configuration.

A name can come to mean another model: a branch of the Hub moves, a folder is written anew. An adapter is
right on the weights that it was trained on only, so its file carries their hash.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from ..errors import ModelLoadError, TrainingAbortedError
from ..events import ShouldStop, never_stop
from ..files.atomic_json import read_json
from .safetensors_files import StoredTensor, read_metadata, stored_tensors

CHUNK = 16 << 20  # bytes
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
    """Read all weights of a model folder once; the same weights in other files have the same hash.

    Raises:
        ModelLoadError: its files cannot be read.
        TrainingAbortedError: `should_stop` said so.
    """
    tensors = sorted(stored_tensors(folder).items())
    digest = partial(_digest, should_stop=should_stop)
    with ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1)) as pool:
        digests = pool.map(digest, (tensor for _, tensor in tensors))
        parts = [
            [name, tensor.dtype, *tensor.shape, found]
            for (name, tensor), found in zip(tensors, digests, strict=True)
        ]
    return BaseIdentity(_sha256(parts), _sha256(_computed(folder / "config.json")))


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
        raise ModelLoadError(f"{config} cannot be read: {error}.", cause=error) from error
    return {name: value for name, value in entries.items() if name not in NOT_COMPUTED}


def _digest(tensor: StoredTensor, should_stop: ShouldStop) -> str:
    digest, left = hashlib.sha256(), tensor.end - tensor.start
    with tensor.path.open("rb") as file:
        file.seek(tensor.start)
        while left > 0 and (data := file.read(min(left, CHUNK))):
            if should_stop():
                raise TrainingAbortedError("Cancelled while the base model was identified.")
            digest.update(data)
            left -= len(data)
    return digest.hexdigest()


def _sha256(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
