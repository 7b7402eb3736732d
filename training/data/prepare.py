"""The whole way from a source to examples on the disk, ready to train on.

Two passes over the data, both streaming: the first decides what becomes of each row, the second renders and
tokenises those that are used. The result is stored under a key made of everything it depends on, so that the
next run with the same data, tokenizer and settings finds it.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..config import DataGroup
from ..errors import DatasetError
from .check import refuse_bad_rows
from .control_tokens import control_tokens
from .encode import Encoded, Encoder, Rendered
from .findings import Findings
from .order import training_order
from .reading import Progress, Read, Report, ShouldStop, open_data, read_rows
from .rows import RowError
from .selection import Selection, select
from .sources import Source
from .token_store import Examples, StoreWriter, stored, summary_of
from .treatment import Treatment

CACHE_VERSION = 1
"""Raised when what is stored, or how it comes about, changes."""

ROWS_AT_ONCE, CHARACTERS_AT_ONCE = 256, 2**19
"""A batch is tokenised when it has either."""


@dataclass
class Summary:
    """What became of the data.

    Args:
        rows: rows of the source; each is used or left out.
        used: rows that at least one example was made of, held-out ones included.
        left_out: findings of the rows that were left out, by reason.
        train, held_out: numbers of examples.
        tokens, trained_tokens: of all examples, and those that carry loss.
        truncated: rows that were cut at `max_seq_length`.
        warnings: findings of rows that were used all the same.
        notes: sentences for the user.
        provenance: what the result depends on, and which rows are held out.
    """

    rows: int = 0
    used: int = 0
    left_out: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    train: int = 0
    held_out: int = 0
    tokens: int = 0
    trained_tokens: int = 0
    truncated: int = 0
    warnings: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    notes: list[str] = field(default_factory=list[str])
    provenance: dict[str, Any] = field(default_factory=dict[str, Any])

    @property
    def trained_share(self) -> float:
        """Share of tokens that carry loss."""
        return self.trained_tokens / self.tokens if self.tokens else 0.0

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "trained_share": round(self.trained_share, 4)}


@dataclass(frozen=True)
class Prepared:
    """Examples to train on and to evaluate with, read from the disk as they are needed.

    Args:
        key: under which the cache keeps them; made of everything that they depend on.
    """

    train: Examples
    held_out: Examples
    summary: Summary
    from_cache: bool
    key: str


def prepared_before(cache: Path, key: str) -> Prepared | None:
    """What the cache keeps under `key`, if it still does; the dataset itself is not looked at."""
    folder = stored(cache, key)
    return None if folder is None else _prepared(folder, key, from_cache=True)


def _prepared(folder: Path, key: str, *, from_cache: bool) -> Prepared:
    train, held_out = Examples(folder, held_out=False), Examples(folder, held_out=True)
    return Prepared(train, held_out, Summary(**summary_of(folder)), from_cache, key)


def prepare(
    data: DataGroup,
    tokenizer: Any,
    *,
    seed: int = 42,
    cache: Path | None = None,
    permit: Callable[[Path], object] = lambda path: None,
    report: Report = lambda message, fraction: None,
    should_stop: ShouldStop = lambda: False,
) -> Prepared:
    """Examples of everything that the settings leave in.

    Args:
        tokenizer: a transformers tokenizer, with the chat template to train with.
        seed: decides the held-out rows, the sample and the order.
        cache: folder of tokenised data; by default a temporary one, which the system removes.
        permit: raises for a path that may not be read.

    Raises:
        DatasetError: the data cannot be read, or rows are bad and `on_bad_rows` is "refuse".
        ChatTemplateError: the model's chat template allows no exact loss mask.
        TrainingAbortedError: `should_stop` said so; nothing is left behind.
        DiskFullError: the examples do not fit on the disk.
    """
    source = open_data(data, permit)
    encoder = Encoder(tokenizer, data)
    cache = cache or Path(tempfile.mkdtemp(prefix="backpropagate-tokens-"))
    report("hashing the dataset", None)
    provenance = _provenance(source, encoder, data, seed)
    key = hashlib.sha256(json.dumps(provenance, sort_keys=True).encode()).hexdigest()
    folder = stored(cache, key)
    found = folder is not None
    if folder is None:
        work = Preparation(source, encoder, data, seed, report, should_stop)
        with StoreWriter(cache, key) as store:
            folder = work.run(store, provenance)
    return _prepared(folder, key, from_cache=found)


def _provenance(source: Source, encoder: Encoder, data: DataGroup, seed: int) -> dict[str, Any]:
    """Everything that the result depends on."""
    values: dict[str, Any] = {
        "version": CACHE_VERSION,
        "content_hash": source.content_hash(),
        "files": [part.name for part in source.parts],
        "tokenizer": encoder.fingerprint(),
        "settings": data.model_dump(mode="json", exclude={"source", "split", "dataset_revision"}),
        "seed": seed,
    }
    if "strftime_now" in encoder.template_source:
        values["day"] = time.strftime("%Y-%m-%d")  # such templates write the date into every conversation
    return values


class Preparation:
    """One run through the data, from nothing to a finished folder."""

    def __init__(
        self,
        source: Source,
        encoder: Encoder,
        data: DataGroup,
        seed: int,
        report: Report,
        should_stop: ShouldStop,
    ) -> None:
        self._source, self._encoder, self._data, self._seed = source, encoder, data, seed
        self._report, self._should_stop = report, should_stop
        self._treatment = Treatment(data, control_tokens(encoder.added_tokens))
        self._summary = Summary(notes=list(source.notes))
        self._left_out, self._warnings = Findings(), Findings()

    def run(self, store: StoreWriter, provenance: dict[str, Any]) -> Path:
        stamp = self._source.stamp()
        self._encoder.expect(self._source.size())
        rows = read_rows(self._source, self._data.columns, self._progress("reading the dataset"))
        selection = select(rows, self._data, self._seed, self._treatment)
        self._summary.notes += selection.notes
        self._encode(selection, store)
        if self._source.stamp() != stamp:
            raise DatasetError("The dataset was changed while it was read.", hint="Call again.")
        refuse_bad_rows(self._left_out, self._summary.rows, self._summary.used, self._data.on_bad_rows)
        order = self._order(store)
        self._summary.train = len(order)
        self._summary.left_out = [found.as_dict() for found in self._left_out.sorted()]
        self._summary.warnings = [found.as_dict() for found in self._warnings.sorted()]
        self._summary.provenance = provenance
        if not self._summary.train:
            raise DatasetError("No examples are left to train on.", hint="Give more rows, or held_out=0.")
        return store.finish(order, asdict(self._summary))

    def _progress(self, message: str) -> Progress:
        return Progress(message, self._source.size(), self._report, self._should_stop)

    def _encode(self, selection: Selection, store: StoreWriter) -> None:
        """The second pass: renders and tokenises the rows that are used."""
        reads: deque[list[Read]] = deque()

        def rendered() -> Iterator[list[Rendered]]:
            for batch in self._batches(selection):
                reads.append([read for read, _ in batch])
                yield [row for _, row in batch]

        for encoded in self._encoder.tokenise_all(rendered()):
            self._store(reads.popleft(), encoded, selection, store)

    def _batches(self, selection: Selection) -> Iterator[list[tuple[Read, Rendered]]]:
        waiting: list[tuple[Read, Rendered]] = []
        characters = 0
        for read in read_rows(self._source, self._data.columns, self._progress("tokenising")):
            rendered = self._rendered(read, selection)
            if rendered is not None:
                waiting.append((read, rendered))
                characters += len(rendered.text)
            if len(waiting) == ROWS_AT_ONCE or characters > CHARACTERS_AT_ONCE:
                yield waiting
                waiting, characters = [], 0
        if waiting:
            yield waiting

    def _rendered(self, read: Read, selection: Selection) -> Rendered | None:
        self._summary.rows += 1
        reason = read.kind or selection.reason(read.number)
        if reason or read.row is None:
            self._left_out.add(reason or "parse", read.place, read.reason)
            return None
        try:
            return self._encoder.render(self._treatment.apply(read.row))
        except RowError as error:
            self._left_out.add(error.kind, read.place, error.reason)
            return None

    def _store(
        self, reads: list[Read], encoded: list[Encoded], selection: Selection, store: StoreWriter
    ) -> None:
        for read, one in zip(reads, encoded, strict=True):
            if not one.trained:
                self._left_out.add("nothing_to_learn", read.place)
                continue
            self._count(read, one)
            held_out = bool(selection.held_out[read.number])
            for part in one.parts:
                store.add(part, held_out, int(selection.hashes[read.number]))
                self._summary.tokens += len(part.input_ids)
                self._summary.held_out += held_out

    def _count(self, read: Read, encoded: Encoded) -> None:
        self._summary.used += 1
        self._summary.trained_tokens += encoded.trained
        self._summary.truncated += "truncated" in encoded.kinds
        for kind in encoded.kinds:
            self._warnings.add(kind, read.place)

    def _order(self, store: StoreWriter) -> Any:
        import numpy as np

        columns = {name: store.column(name) for name in ("hashes", "ends", "input_ids", "trained")}
        train = np.flatnonzero(store.column("side") == 0)
        return training_order(self._data.order, self._seed, train, **columns)
