"""Inspects a dataset without training: its content, its problems by line, and what the model will see."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from ...config.specs import DataGroup
from ...events import Report, ShouldStop, never_stop, no_report
from ...files.atomic_json import read_json, write_json
from ...models.token_limits import TokenLimits
from ..cleaning.near_duplicates import NearDuplicates
from ..formats.reading import ReadProgress, open_data, read_rows
from ..readers.sources import Permit, Source, permit_all
from ..tokens.encode import NO_LIMITS, Encoder
from ..tokens.gc_pause import gc_pause
from .inspection_result import Inspection, from_record
from .inspector import Inspector

INSPECTION_VERSION = 10
"""Part of the cache key. To be increased when a result for the same data changes, words included."""


def inspect(
    data: DataGroup,
    tokenizer: Any = None,
    *,
    preview: int = 3,
    cache: Path | None = None,
    permit: Permit = permit_all,
    report: Report = no_report,
    should_stop: ShouldStop = never_stop,
    limits: TokenLimits = NO_LIMITS,
) -> Inspection:
    """Reads every row and collects findings. Bad rows are findings, not errors.

    Args:
        tokenizer: a transformers tokenizer, or `TokenizerFiles`; None: no token statistics and no preview.
        preview: number of rows to show as the model sees them.
        limits: of the model.
        cache: folder of results; a second inspection of the same data is answered from it.

    Raises:
        DatasetError: the source cannot be read.
        TrainingAbortedError: `should_stop` returned True.
    """
    source = open_data(data, permit, should_stop)
    encoder = None if tokenizer is None else Encoder(tokenizer, data, limits)
    stamp = source.stamp()  # before hashing: what is read later must be what was hashed
    path = None if cache is None else cache / f"{_key(source, encoder, data, preview, should_stop)}.json"
    if path is not None and path.is_file():
        return from_record(read_json(path))
    progress = ReadProgress("preparing", "inspecting the dataset", source.size(), report, should_stop)
    inspector = Inspector(source, encoder, data, preview)
    with NearDuplicates() as index, gc_pause():
        for read in read_rows(source, data.columns, progress):
            inspector.add(read, index, progress.rows_in_all(read.number + 1))
        result = inspector.finish(index)
    source.require_unchanged(stamp)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, vars(result))
    return result


def _key(
    source: Source, encoder: Encoder | None, data: DataGroup, preview: int, should_stop: ShouldStop
) -> str:
    """A hash of everything that a result depends on."""
    parts = [
        INSPECTION_VERSION,
        source.content_hash(should_stop),
        [part.name for part in source.parts],
        encoder.fingerprint() if encoder else None,
        data.model_dump(mode="json", exclude={"source"}),
        preview,
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
