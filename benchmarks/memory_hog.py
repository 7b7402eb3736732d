"""Another process that holds a card's memory."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager

HOG = """
import sys, time, torch
target, held, calm = int(float(sys.argv[1]) * 2**30), [], 0
while calm < 10:
    surplus = torch.cuda.mem_get_info()[0] - target
    if surplus > 2**25:
        held.append(torch.empty(surplus, dtype=torch.uint8, device="cuda"))
    calm = 0 if surplus > 2**25 else calm + 1
    time.sleep(0.2)
print("held", flush=True)
sys.stdin.read()
"""
"""Takes what is freed for two seconds more: a process that has just ended gives its memory back late."""


@contextmanager
def only_free(gib: float) -> Generator[None]:
    """Leave this much of the card's memory.

    Raises:
        RuntimeError: the memory cannot be held.
    """
    hog = subprocess.Popen(
        [sys.executable, "-c", HOG, str(gib)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert hog.stdout is not None
    try:
        if hog.stdout.readline().strip() != "held":
            raise RuntimeError(f"No process holds the card's memory but for {gib:g} GiB; see above.")
        yield
    finally:
        hog.communicate()
