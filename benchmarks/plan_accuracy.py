"""Whether the plan is true: planned peak and speed beside measured ones, on one GPU.

    python benchmarks/plan_accuracy.py                the settings below, about half an hour on an H100
    python benchmarks/plan_accuracy.py CASE …         others, as gpu_streaming.py takes them
    python benchmarks/plan_accuracy.py --list         the settings

Sizes, steps, recomputation, bits, place of the weights and free memory vary; see gpu_streaming.py. A peak
should be at most 10 % above and never more than 3 % below the measured one, a speed within 25 %. A case for
which the card or the host has no room is shown with its error.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from streaming_case import in_process
from workload import table

CASES = (
    "0.5b:bits=16", "0.5b:bits=16:tokens=4096", "0.5b", "1.5b:bits=16", "1.5b:free=6",
    "7b:bits=16", "7b:bits=16:recompute=gate_up", "7b:bits=16:recompute=everything", "7b:bits=16:free=12",
    "7b", "7b:recompute=everything:tokens=8192:weights=gpu",
    "7b:recompute=everything:tokens=8192:weights=host",
    "7b:recompute=everything:tokens=4096:weights=host", "7b:free=6", "7b:free=8", "7b:free=12", "7b:free=16",
    "14b:free=8", "14b:free=24", "32b:free=12", "70b:free=24",
)  # fmt: skip
ABOVE, BELOW, SPEED = 0.10, -0.03, 0.25
COLUMNS = ["case", "card", "planned GiB", "measured GiB", "error", "planned tok/s", "measured tok/s", "error"]


def error(planned: float, measured: float) -> float:
    return planned / measured - 1


def row_of(found: dict[str, Any]) -> list[str]:
    """One line of the table; of a case that failed, what it said."""
    if "tok/s" not in found:
        return [found["case"], str(found["recompute"]), *[""] * 6]
    peak, speed = errors_of(found)
    planned, measured = found["planned peak"], found["peak GiB"]
    rates = [f"{found['planned tok/s']:,}", f"{found['tok/s']:,}"]
    return [
        found["case"],
        found["card"],
        f"{planned}",
        f"{measured}",
        f"{peak:+.1%}",
        *rates,
        f"{speed:+.1%}",
    ]


def errors_of(found: dict[str, Any]) -> tuple[float, float]:
    peak = error(found["planned peak"], found["peak GiB"])
    return peak, error(found["planned tok/s"], found["tok/s"])


def main() -> None:
    cases = sys.argv[1:] or list(CASES)
    if cases == ["--list"]:
        print("\n".join(CASES))
        return
    if cases[0].startswith("-"):
        print(__doc__)
        return
    results: list[dict[str, Any]] = []
    for case in cases:
        results.append(in_process(case))
        print(json.dumps(results[-1]), flush=True)
    print(table([COLUMNS, *map(row_of, results)]))
    done = [errors_of(found) for found in results if "tok/s" in found]
    if not done:
        sys.exit("No setting was measured.")
    peaks, speeds = [peak for peak, _ in done], [abs(speed) for _, speed in done]
    kept = min(peaks) >= BELOW and max(peaks) <= ABOVE and max(speeds) <= SPEED
    print(
        f"{len(done)} of {len(cases)} settings: peak {min(peaks):+.1%} to {max(peaks):+.1%}, "
        f"speed within {max(speeds):.1%}: {'true' if kept else 'MISSED'}"
    )
    sys.exit(0 if kept else 1)


if __name__ == "__main__":
    main()
