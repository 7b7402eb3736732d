"""Whether the plan is true: planned peak and speed beside measured ones, on one GPU.

    python benchmarks/plan_accuracy.py                the settings below, about half an hour on an H100
    python benchmarks/plan_accuracy.py CASE …         others, as gpu_streaming.py takes them
    python benchmarks/plan_accuracy.py --list         the settings
    CUDA_VISIBLE_DEVICES=1 python benchmarks/plan_accuracy.py --share 1/4 --window-s 2
                                                      the second of four parts, on a card of its own

Sizes, steps, recomputation, bits, place of the weights and free memory vary; see gpu_streaming.py. A peak
should be at most 10 % above and never more than 3 % below the measured one, a speed within 25 %. A case for
which the card or the host has no room is shown with its error. With --share each part takes about as long.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
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
SECONDS = {"0.5b": 65, "1.5b": 65, "7b": 40, "14b": 55, "32b": 80, "70b": 150}
"""Of a setting, guessed, to make parts that take about as long."""
GRAPHED = ("0.5b", "1.5b")
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


def share_of(cases: Sequence[str], number: int, count: int) -> list[str]:
    """The cases of part `number`, from 0: the longest first, each to the part with the least time so far."""
    parts: list[list[str]] = [[] for _ in range(count)]
    for case in sorted(cases, key=seconds_of, reverse=True):
        min(parts, key=lambda taken: sum(map(seconds_of, taken))).append(case)
    return sorted(parts[number], key=cases.index)


def seconds_of(case: str) -> int:
    return SECONDS.get(case.split(":")[0], 40)


def warm_up_of(case: str, seconds: float) -> float:
    """A small model's speed is that of its CUDA graphs, which come with the first steps of each shape."""
    return seconds if case.startswith(GRAPHED) and "free=" not in case else 0.0


def part(text: str) -> tuple[int, int]:
    number, count = map(int, text.split("/"))
    if not 0 <= number < count:
        raise ValueError(text)
    return number, count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("cases", nargs="*", default=CASES, metavar="CASE")
    parser.add_argument("--list", action="store_true", help="say the settings, measure nothing")
    parser.add_argument("--share", type=part, default=(0, 1), metavar="I/N", help="part I of N, from 0")
    parser.add_argument("--window-s", type=float, default=3.0)
    parser.add_argument("--warm-up-s", type=float, default=30.0, help="of models whose steps become graphs")
    asked = parser.parse_args()
    cases = share_of(asked.cases, *asked.share)
    if asked.list:
        print("\n".join(cases))
        return
    results: list[dict[str, Any]] = []
    for case in cases:
        results.append(in_process(case, asked.window_s, warm_up_of(case, asked.warm_up_s)))
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
