"""Python's garbage collector, told to look less often while millions of objects are made."""

from __future__ import annotations

import gc
from collections.abc import Generator
from contextlib import contextmanager

OBJECTS = 50_000
"""Objects made between two looks at the young ones. By default it is 700 (2,000 since Python 3.14)."""


@contextmanager
def gc_pause() -> Generator[None]:
    """In here, what already lives is not looked at, and what is new less often.

    Rows are many small objects that live for a moment, without cycles. Each full collection looks at all that
    the process has imported as well, which took a sixth of the time of preparing data.
    """
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(OBJECTS, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
