"""Rows of a Hub dataset, or of a local copy of its repository, read with `datasets`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import DatasetError, DatasetNotFoundError, DatasetParseError
from ...events import ShouldStop, never_stop
from ...untrusted import quoted, short_name
from .decoding import OnRead, file_hash, ignore_count
from .folder_walk import FolderWalk, permit_all, real_path
from .libraries import library
from .rows import BadRow, Place, RawRow
from .table_rows import without_nulls

PURPOSE = "Reading a Hub dataset"


@dataclass(frozen=True)
class HubDataset:
    """One split of a dataset.

    Args:
        name: `owner/name`, or the path of a local copy.
        config: the configuration; None: the default one.
        revision: the commit, so that each read gives the same rows; None for a local copy.
    """

    name: str
    config: str | None
    split: str
    revision: str | None

    def rows(self, on_read: OnRead = ignore_count) -> Iterator[RawRow | BadRow]:
        label = f"{self.name}[{self.split}]"
        for number, value in enumerate(self._stream(), start=1):
            yield RawRow(Place(label, number, "row"), without_nulls(value))

    def size(self) -> int:
        """0: unknown without downloading it."""
        return 0

    def content_hash(self, should_stop: ShouldStop = never_stop) -> str:
        """A hash of the commit, or of all files of a local copy."""
        content = self.revision or _tree_hash(Path(self.name), should_stop)
        return hashlib.sha256(f"{self.config} {self.split} {content}".encode()).hexdigest()

    def _stream(self) -> Iterator[dict[str, Any]]:
        datasets = library("datasets", PURPOSE)
        try:
            stream = datasets.load_dataset(
                self.name, self.config, split=self.split, revision=self.revision, streaming=True
            )
            yield from stream
        except (FileNotFoundError, ConnectionError) as error:
            raise DatasetNotFoundError(
                f"The dataset {quoted(self.name)} cannot be read: {type(error).__name__}.",
                untrusted=str(error),
            ) from None
        except (ValueError, datasets.exceptions.DatasetsError) as error:
            raise DatasetParseError(
                f"The split {quoted(self.split)} of {quoted(self.name)} cannot be read: "
                f"{type(error).__name__}.",
                hint="Set split to one of its splits. Give a configuration as owner/name:config.",
                untrusted=str(error),
            ) from None


def hub_dataset(name: str, split: str | None, revision: str | None) -> HubDataset:
    """The dataset, pinned to a commit.

    Args:
        split: None for `train`, or the only one whose name begins so.
    """
    if Path(name).is_dir():
        return HubDataset(name, None, split or "train", None)
    name, _, config = name.partition(":")
    commit = _commit(name, revision)
    return HubDataset(name, config or None, split or _train_split(name, config or None, commit), commit)


def _train_split(name: str, config: str | None, commit: str) -> str:
    """The split to train on where none is given."""
    datasets = library("datasets", PURPOSE)
    try:
        splits: list[str] = datasets.get_dataset_split_names(name, config, revision=commit)
    except Exception:  # what is wrong is said when its rows are read
        return "train"
    found = [split for split in splits if split.lower().startswith("train")]
    if "train" in found:
        return "train"
    if len(found) == 1:
        return found[0]
    raise DatasetNotFoundError(
        f"The dataset {quoted(name)} has no split train, but {', '.join(map(quoted, splits[:10]))}.",
        hint=f"Set split, for example split={json.dumps(short_name((found or splits or ['train'])[0]))}.",
    )


def _commit(name: str, revision: str | None) -> str:
    hub = library("huggingface_hub", PURPOSE)
    try:
        commit = hub.HfApi().dataset_info(name, revision=revision).sha
    except Exception as error:  # errors of the HTTP library have no common class
        raise DatasetNotFoundError(
            f"There is no file {quoted(name)}, and no Hub dataset of this name is available: "
            f"{type(error).__name__}.",
            hint="Give the absolute path of a file, or check the name, the network and HF_TOKEN.",
            untrusted=str(error),
        ) from None
    if commit is None:
        raise DatasetError(f"The Hub returns no commit for {quoted(name)}.")
    return commit


def _tree_hash(folder: Path, should_stop: ShouldStop) -> str:
    digest = hashlib.sha256()
    for path in sorted(FolderWalk(permit_all, should_stop).files_in(folder, hidden=True)):
        name = str(path.relative_to(folder)).encode("utf-8", "surrogateescape")
        digest.update(name + f" {file_hash(real_path(path), should_stop)}\n".encode())
    return digest.hexdigest()
