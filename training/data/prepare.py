"""Prepares a dataset: from a source to stored examples, ready to train on.

One streaming pass finds bad rows and duplicates, and renders and tokenises each row. Then the rows to use are
selected, and the examples of the others are removed. With `samples`, a first pass draws the sample, so that
only its rows are tokenised. The result is stored under a key of everything that it depends on, so that the
next run with the same data, tokenizer and settings finds it.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config.specs import DataGroup
from ..errors import DatasetError
from ..events import Phase, Report, ShouldStop, never_stop, no_report
from ..models.token_limits import TokenLimits
from .chat_template.control_tokens import control_tokens
from .cleaning.transforms import Transforms, transformed
from .findings import Findings, refuse_bad_rows
from .formats.reading import Read, ReadProgress, open_data, read_rows
from .readers.sources import Permit, Source, permit_all
from .split.order import training_order
from .split.selection import Selection, select
from .tokens.encode import NO_LIMITS, Encoder
from .tokens.encoded_rows import EncodedRows
from .tokens.gc_pause import gc_pause
from .tokens.row_log import LoggedRow, RowLog
from .tokens.token_lengths import TokenLengths
from .tokens.token_store import Examples, StoreWriter, stored, summary_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CACHE_VERSION = 5
"""Part of the key. To be increased when the stored format, or the content for equal settings, changes."""

NAMING = {"source", "split", "dataset_revision", "validation"}
"""Settings that only say where the content is, which is hashed."""


@dataclass
class Summary:
    """Counts and findings of a prepared dataset.

    Args:
        rows: rows of the source; each is either used or left out.
        used: rows with at least one example, held-out ones included.
        left_out: findings of the rows that are not used, by reason.
        train, held_out: numbers of examples.
        tokens, trained_tokens: tokens of all examples, and those of them that carry loss.
        truncated: rows that are truncated to `max_seq_length`.
        warnings: findings of used rows.
        notes: sentences for the user.
        provenance: everything that the result depends on.
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
        """For JSON, with `trained_share`."""
        return {**asdict(self), "trained_share": round(self.trained_share, 4)}


@dataclass(frozen=True)
class Prepared:
    """Training and held-out examples, read from disk when they are needed.

    Args:
        from_cache: whether an earlier run had stored them.
        key: of their folder in the cache; a hash of everything that they depend on.
    """

    train: Examples
    held_out: Examples
    summary: Summary
    from_cache: bool
    key: str


def prepared_before(cache: Path, key: str) -> Prepared | None:
    """The examples stored under `key`, or None. The dataset itself is not read."""
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
    permit: Permit = permit_all,
    report: Report = no_report,
    should_stop: ShouldStop = never_stop,
    limits: TokenLimits = NO_LIMITS,
) -> Prepared:
    """Makes the examples of a dataset, or finds them in the cache.

    Args:
        tokenizer: a transformers tokenizer, with the chat template to train with.
        seed: of the held-out rows, the sample and the order.
        cache: folder of tokenised data; None: a temporary folder, which the system removes.
        permit: raises PathForbiddenError for a path that may not be read.
        report: receives `Phase` events.
        limits: of the model.

    Raises:
        DatasetError: the dataset cannot be read, rows are bad and `on_bad_rows` is "refuse", or none is left.
        ChatTemplateError: the model's chat template allows no exact loss mask.
        TrainingAbortedError: `should_stop` returned True. No files are left.
        DiskFullError: the examples do not fit on the disk.
    """
    # Both before hashing, which takes long for large files: their errors come at once.
    source = open_data(data, permit, should_stop)
    encoder = Encoder(tokenizer, data, limits)
    cache = cache or Path(tempfile.mkdtemp(prefix="backpropagate-tokens-"))
    report(Phase(phase="preparing", message="hashing the dataset"))
    stamp = source.stamp()  # before hashing: what is read later must be what was hashed
    provenance = _provenance(source, encoder, data, seed, should_stop)
    key = hashlib.sha256(json.dumps(provenance, sort_keys=True).encode()).hexdigest()
    folder = stored(cache, key)
    found = folder is not None
    if folder is None:
        work = Preparation(source, encoder, data, seed, report, should_stop)
        with StoreWriter(cache, key) as store, gc_pause():
            folder = work.run(store, provenance, stamp)
    return _prepared(folder, key, from_cache=found)


def _provenance(
    source: Source, encoder: Encoder, data: DataGroup, seed: int, should_stop: ShouldStop
) -> dict[str, Any]:
    """Everything that the result depends on; its hash is the key."""
    values: dict[str, Any] = {
        "version": CACHE_VERSION,
        "content_hash": source.content_hash(should_stop),
        "files": [part.name for part in source.parts],
        "tokenizer": encoder.fingerprint(),
        "settings": data.model_dump(mode="json", exclude=NAMING),
        "seed": seed,
    }
    if source.trained is not None:
        values["trained_files"] = source.trained
    if "strftime_now" in encoder.template_source:
        values["day"] = time.strftime("%Y-%m-%d")  # such templates write the date into each conversation
    return values


class Preparation:
    """Reads the dataset, selects its rows and fills one folder of the store."""

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
        self._transforms = Transforms(data, control_tokens(encoder.added_tokens))
        self._summary = Summary(notes=list(source.notes))
        self._left_out, self._warnings = Findings(), Findings()
        self._without_trained = TokenLengths()

    def run(self, store: StoreWriter, provenance: dict[str, Any], stamp: list[tuple[int, int]]) -> Path:
        """Fills the store and returns its finished folder.

        Args:
            stamp: of the source when its content was hashed.

        Raises:
            DatasetError, ChatTemplateError, TrainingAbortedError, DiskFullError: as for `prepare`.
        """
        import numpy as np

        # Before the first row: the fast tokenizer is built in a thread while rows are read.
        self._encoder.expect(self._source.size())
        with EncodedRows(self._encoder, store) as encoded:
            selection = self._encode(encoded)
            self._summary.notes += selection.notes
            # After the last pass: all passes must have read the same content.
            self._require_unchanged(stamp)
            # Inside the context, which deletes the row log at its end.
            self._count(encoded.row_log, selection)
        self._keep(np.array(encoded.row_of_example, np.int64), selection, store)
        self._left_out.suggest(
            "nothing_to_learn", f"max_seq_length={self._without_trained.sufficient_length()}"
        )
        # Again after `select`: the chat template and max_seq_length make more rows unusable.
        refuse_bad_rows(self._left_out, self._summary.rows, self._summary.used, self._data.on_bad_rows)
        # After `_keep`: the order has the numbers of the examples that are left.
        order = self._order(store)
        self._summary.train = len(order)
        self._summary.left_out = [found.as_dict(self._summary.used) for found in self._left_out.sorted()]
        self._summary.warnings = [found.as_dict(self._summary.used) for found in self._warnings.sorted()]
        self._summary.provenance = provenance
        if not self._summary.train:
            raise DatasetError("No examples are left to train on.", hint="Add rows, or set held_out=0.")
        return store.finish(order, asdict(self._summary))

    def _require_unchanged(self, stamp: list[tuple[int, int]]) -> None:
        self._source.require_unchanged(stamp)

    def _rows(self, message: str) -> Iterator[Read]:
        progress = ReadProgress("preparing", message, self._source.size(), self._report, self._should_stop)
        # Before hashing and duplicates: these must see the text that is trained on.
        return transformed(read_rows(self._source, self._data.columns, progress), self._transforms)

    def _encode(self, encoded: EncodedRows) -> Selection:
        """Encodes the rows that may be used, and selects the rows to use."""
        if self._data.samples is None:
            # `select` pulls the rows through the encoder, so that one pass does both.
            rows = encoded.through(self._rows("tokenising"))
            selection = select(rows, self._data, self._seed, self._source.trained)
        else:
            rows = self._rows("reading the dataset")
            selection = select(rows, self._data, self._seed, self._source.trained)
            for read in self._rows("tokenising"):
                reason = selection.reason(read.number)
                encoded.add(read.left_out(reason) if reason else read)
        # After `select`, so that bad rows are reported before a chat template that allows no exact mask.
        encoded.finish()
        return selection

    def _count(self, row_log: RowLog, selection: Selection) -> None:
        """Fills the summary from the row log and the selection."""
        self._summary.rows = len(selection.reasons)
        for rows in row_log.clean():
            used = selection.reasons[rows.numbers] == 0
            self._summary.used += int(used.sum())
            self._summary.tokens += int(rows.tokens[used].sum())
            self._summary.trained_tokens += int(rows.trained[used].sum())
            self._summary.held_out += int(rows.examples[used & selection.held_out[rows.numbers]].sum())
        # Merged by number, so that findings list the first places in the order of the data.
        left_out = (
            row
            for rows in row_log.clean()
            for row in row_log.selected(rows, selection.reasons[rows.numbers] != 0)
        )
        for row in heapq.merge(row_log.flagged(), left_out, key=lambda row: row.number):
            self._count_one(row, selection)

    def _count_one(self, row: LoggedRow, selection: Selection) -> None:
        """Counts a row that is left out or has a warning."""
        reason = selection.reason(row.number) or row.kind
        if reason:
            why = (row.reason, row.untrusted) if reason == row.kind else ()
            self._left_out.add(reason, row.place, *why)
            if reason == "nothing_to_learn":
                self._without_trained.add(row.tokens, 0, 0)
            return
        self._summary.used += 1
        self._summary.tokens += row.tokens
        self._summary.trained_tokens += row.trained
        self._summary.truncated += "truncated" in row.warnings
        self._summary.held_out += row.examples * bool(selection.held_out[row.number])
        for kind in row.warnings:
            self._warnings.add(kind, row.place)

    def _keep(self, rows: NDArray[np.int64], selection: Selection, store: StoreWriter) -> None:
        """Keeps the examples of the used rows in the store; `rows`: (examples,) the row of each."""
        store.keep(selection.reasons[rows] == 0, selection.held_out[rows], selection.hashes[rows])

    def _order(self, store: StoreWriter) -> NDArray[np.int64]:
        import numpy as np

        columns = {name: store.column(name) for name in ("hashes", "ends", "input_ids", "trained")}
        train = np.flatnonzero(store.column("side") == 0)
        return training_order(self._data.order, self._seed, train, **columns)
