"""`backprop --help` as a whole process, beside importing the parser's library.

python benchmarks/help_time.py [rounds]
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path


def seconds(command: list[str]) -> float:
    before = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - before


def main(rounds: int) -> None:
    backprop = [str(Path(sys.executable).with_name("backprop")), "--help"]
    library = [sys.executable, "-c", "import click"]
    pairs = [(seconds(backprop), seconds(library)) for _ in range(rounds + 1)][1:]
    ratios = [ours / theirs for ours, theirs in pairs]
    ours_s, library_s = (statistics.median(side) for side in zip(*pairs, strict=True))
    print(f"--help {ours_s * 1000:.0f} ms, import click {library_s * 1000:.0f} ms")
    print(
        f"ratio: {statistics.median(ratios):.2f} (least {min(ratios):.2f}, most {max(ratios):.2f}; goal 1.5)"
    )


main(int(sys.argv[1]) if len(sys.argv) > 1 else 21)
