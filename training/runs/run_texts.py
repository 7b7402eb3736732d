"""Texts in a run folder that libraries and models wrote: the log, and the card of the adapter."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import RunFolderError
from ..files.regular_file import open_regular, read_regular
from ..redact import scrub
from ..untrusted import sanitized, shown_path
from .folder import RunFolder

LOG_BYTES = 64 * 1024
LOG_LINES = 200
MARGIN = 16 * 1024  # bytes before the tail, so that the start of a longer secret is seen
CARD_BYTES = 256 * 1024


def log_tail(run: RunFolder) -> str:
    """The last lines of worker.log, without secrets and control characters; empty without a log.

    Raises:
        RunFolderError: it cannot be read.
    """
    text, cut = _read(run.log_path, LOG_BYTES + MARGIN)
    shown = sanitized(scrub(_as_printed(text)))
    tail = shown[-LOG_BYTES:]
    if cut or len(shown) > LOG_BYTES:
        tail = tail.partition("\n")[2]  # the first line may lack its begin
    return "\n".join(tail.splitlines()[-LOG_LINES:])


def model_card(run: RunFolder) -> str | None:
    """The README.md of the adapter, without secrets and control characters; None without one.

    Raises:
        RunFolderError: it cannot be read.
    """
    path = run.adapter_path / "README.md"
    try:
        card = read_regular(path, CARD_BYTES, follow_links=False)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    return sanitized(scrub(card.decode(errors="replace")))


def _read(path: Path, most: int) -> tuple[str, bool]:
    """The end of a file, and whether something comes before it."""
    try:
        with open_regular(path, follow_links=False) as file:
            start = max(0, os.fstat(file.fileno()).st_size - most)
            file.seek(start)
            return file.read(most).decode(errors="replace"), start > 0
    except FileNotFoundError:
        return "", False
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error


def _as_printed(text: str) -> str:
    """The text as a terminal would show it: a progress bar is only its last state."""
    lines = text.replace("\r\n", "\n").split("\n")
    return "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in lines)


def _unreadable(path: Path, error: Exception) -> RunFolderError:
    return RunFolderError(
        f"{shown_path(path)} cannot be read ({error.__class__.__name__}).",
        hint="Restore the file, or remove the run.",
        cause=error,
    )
