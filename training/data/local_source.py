"""Checks of a dataset when a run is requested: without network access and without reading rows."""

from __future__ import annotations

import hashlib

from ..config.specs import DataGroup
from ..errors import DatasetError
from ..events import ShouldStop, never_stop
from .formats.reading import open_data
from .readers.hub_names import is_on_hub
from .readers.sources import Permit, Source

HASHED_BYTES = 2 << 30
"""More would take longer than a caller waits."""


def local_source(data: DataGroup, permit: Permit, should_stop: ShouldStop = never_stop) -> Source | None:
    """The dataset's files, or None for a dataset of the Hub.

    Raises:
        DatasetError: the file does not exist, has an unsupported type, or is empty.
        PathForbiddenError: a file may not be read.
        TrainingAbortedError: `should_stop` returned True.
    """
    if isinstance(data.source, str) and is_on_hub(data.source):
        return None
    source = open_data(data, permit, should_stop)
    if source.size() == 0:
        names = ", ".join(part.name for part in source.parts[:3])
        raise DatasetError(f"{names} is empty.", hint="Give a file with at least one row.")
    return source


def content_of(data: DataGroup, permit: Permit, should_stop: ShouldStop = never_stop) -> str:
    """A hash of the dataset's content.

    Of more than `HASHED_BYTES` it is one of the files' sizes and times; of a Hub dataset, of its name, split
    and revision.

    Raises:
        DatasetError, PathForbiddenError, TrainingAbortedError: as for `local_source`.
    """
    source = local_source(data, permit, should_stop)
    if source is None:
        known = f"{data.source} {data.split} {data.dataset_revision}"
    elif source.size() > HASHED_BYTES:
        known = str(source.stamp())
    else:
        return source.content_hash(should_stop)
    return hashlib.sha256(known.encode()).hexdigest()
