"""The Hub models whose files are on this machine. Looks at names and sizes only."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from .model_folder import missing_from
from .presets import is_hub_id
from .safetensors_files import weight_files
from .smollm2 import HUB_ID, smollm2_folder

REPOSITORY = "models--"
"""Begins a model's folder in the Hub's cache; `--` separates the owner from the name."""


class CachedModel(NamedTuple):
    """A model that needs no download.

    Args:
        weights: bytes of its weights.
    """

    hub_id: str
    folder: Path
    weights: int


def cached_models(models_folder: Path) -> list[CachedModel]:
    """All whole models, by name.

    Args:
        models_folder: where models that had to be converted are kept.
    """
    found = {model.hub_id: model for model in _in_hub_cache(_hub_cache())}
    folder = smollm2_folder(models_folder)
    if HUB_ID not in found and _is_whole(folder):
        found[HUB_ID] = CachedModel(HUB_ID, folder, _weights(folder))
    return sorted(found.values())


def _hub_cache() -> Path:
    """Where huggingface_hub keeps its files, which need not be installed here."""
    home = os.environ.get("HF_HOME") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface"
    )
    return Path(os.environ.get("HF_HUB_CACHE") or os.path.join(home, "hub")).expanduser()


def _in_hub_cache(cache: Path) -> Iterator[CachedModel]:
    with suppress(OSError):
        for repository in cache.glob(f"{REPOSITORY}*"):
            hub_id = repository.name.removeprefix(REPOSITORY).replace("--", "/", 1)
            folder = _newest_snapshot(repository / "snapshots")
            if is_hub_id(hub_id) and folder:
                yield CachedModel(hub_id, folder, _weights(folder))


def _newest_snapshot(folder: Path) -> Path | None:
    with suppress(OSError):
        whole = [snapshot for snapshot in folder.iterdir() if _is_whole(snapshot)]
        return max(whole, key=lambda snapshot: snapshot.stat().st_mtime, default=None)
    return None


def _is_whole(folder: Path) -> bool:
    with suppress(Exception):  # a damaged one is not offered
        return folder.is_dir() and missing_from(folder) is None and _weights(folder) > 0
    return False


def _weights(folder: Path) -> int:
    return sum(path.stat().st_size for path in weight_files(folder))
