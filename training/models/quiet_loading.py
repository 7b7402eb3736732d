"""Loads a model without what libraries print for nobody: bars of a second, and a kernel that nobody needs."""

from __future__ import annotations

import logging
from collections.abc import Generator
from contextlib import contextmanager


@contextmanager
def quiet_loading() -> Generator[None]:
    """No progress bars meanwhile; every other word of the libraries stays."""
    from transformers.utils import logging as transformers_logging

    logging.getLogger("bitsandbytes.backends.cpu.ops").addFilter(_is_needed)
    if not transformers_logging.is_progress_bar_enabled():
        yield
        return
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.enable_progress_bar()


def _is_needed(record: logging.LogRecord) -> bool:
    """bitsandbytes looks for a faster kernel on the Hub when it is imported, and has another."""
    return "gemm_4bit_forward" not in record.getMessage()
