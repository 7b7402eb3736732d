"""Another process that holds a card's memory."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager

HOG = """
import sys, torch
free, _ = torch.cuda.mem_get_info()
held = torch.empty(max(0, free - int(float(sys.argv[1]) * 2**30)), dtype=torch.uint8, device="cuda")
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def only_free(gib: float) -> Generator[None]:
    """Leave this much of the card's memory."""
    hog = subprocess.Popen(
        [sys.executable, "-c", HOG, str(gib)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert hog.stdout is not None
    hog.stdout.readline()
    try:
        yield
    finally:
        hog.communicate()
