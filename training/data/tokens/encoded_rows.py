"""Encodes rows while they are read, before the selection of rows is known.

Duplicates and held-out rows are known only after the last row. So that each row is read and recognised only
once, it is rendered and tokenised immediately: its tokens go to the store, and its result to the row log.
Tokenisation runs in a second thread. Tokenizers release Python's GIL, so reading and rendering continue.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from ...errors import ChatTemplateError
from ..formats.reading import Read
from ..readers.rows import RowError
from .encode import CHARACTERS_AT_ONCE, ROWS_AT_ONCE, Encoded, Encoder, Rendered
from .example import MaskedTokens
from .row_log import LoggedRow, RowLog
from .token_store import StoreWriter

BATCHES_AHEAD = 24
"""Limit of batches that wait, 12 million characters at most. They wait while the fast tokenizer is built."""


Batch = list[tuple[Read, Rendered | RowError | None]]
"""Rows with their rendered text, or with the reason why there is none."""


class EncodedRows:
    """Encodes rows into a store. Use as a context: `through` or `add`, then `finish`, then read `row_log`.

    Memory: the waiting batches, and 8 bytes per example.
    """

    def __init__(self, encoder: Encoder, store: StoreWriter) -> None:
        self._encoder, self._store = encoder, store
        self.row_of_example = array("q")
        self.row_log = RowLog()
        self._thread = ThreadPoolExecutor(1, "tokenise")
        self._rows: Batch = []
        self._texts: list[Rendered] = []
        self._characters = 0
        self._running: deque[tuple[Batch, Future[list[Encoded]]]] = deque()
        self._failure: ChatTemplateError | None = None

    def __enter__(self) -> EncodedRows:
        return self

    def __exit__(self, *error: object) -> None:
        self._thread.shutdown(cancel_futures=True)
        self.row_log.__exit__()

    def through(self, reads: Iterable[Read]) -> Iterator[Read]:
        """Yields the rows unchanged and encodes each of them."""
        for read in reads:
            self.add(read)
            yield read

    def add(self, read: Read) -> None:
        """Encodes a row, or logs why it is unusable."""
        rendered = self._rendered(read)
        self._rows.append((read, rendered))
        if isinstance(rendered, Rendered):
            self._texts.append(rendered)
            self._characters += len(rendered.text)
        if len(self._rows) == ROWS_AT_ONCE or self._characters > CHARACTERS_AT_ONCE:
            self._send()

    def finish(self) -> None:
        """Waits until all rows are tokenised.

        Raises:
            ChatTemplateError: the chat template allows no exact loss mask. It is raised only here, so that
                bad rows anywhere in the data are reported first.
        """
        self._send()
        while self._running:
            self._take()
        if self._failure:
            raise self._failure

    def _rendered(self, read: Read) -> Rendered | RowError | None:
        if read.row is None or self._failure:
            return None
        try:
            return self._encoder.render(read.row)
        except RowError as error:
            return error
        except ChatTemplateError as error:
            self._failure = error
            return None

    def _send(self) -> None:
        self._running.append((self._rows, self._thread.submit(self._encoder.tokenise, self._texts)))
        self._rows, self._texts, self._characters = [], [], 0
        # From the front only: the store and the log need the order of the data.
        while self._running and (self._running[0][1].done() or len(self._running) > BATCHES_AHEAD):
            self._take()

    def _take(self) -> None:
        rows, future = self._running.popleft()
        try:
            encoded = iter(future.result())
        except ChatTemplateError as error:
            self._failure = self._failure or error
            return
        logged: list[LoggedRow] = []
        parts: list[MaskedTokens] = []
        for read, rendered in rows:
            one = next(encoded) if isinstance(rendered, Rendered) else None
            if one is None:
                logged.append(_refused(read, rendered))
            elif one.refusal:
                logged.append(LoggedRow(read.number, read.part, read.place, one.refusal, one.reason))
            elif not one.trained:
                nothing = LoggedRow(read.number, read.part, read.place, "nothing_to_learn")
                logged.append(nothing._replace(tokens=one.length))
            else:
                parts += one.parts
                self.row_of_example.extend([read.number] * len(one.parts))
                logged.append(_used(read, one))
        self._store.add(parts)
        self.row_log.add(logged)


def _used(read: Read, one: Encoded) -> LoggedRow:
    counts = len(one.parts), one.kept, one.trained
    return LoggedRow(read.number, read.part, read.place, None, "", one.kinds, *counts)


def _refused(read: Read, error: Rendered | RowError | None) -> LoggedRow:
    if isinstance(error, RowError):
        logged = LoggedRow(read.number, read.part, read.place, error.kind, error.reason)
        return logged._replace(untrusted=error.untrusted)
    return LoggedRow(read.number, read.part, read.place, read.kind or "parse", read.reason)
