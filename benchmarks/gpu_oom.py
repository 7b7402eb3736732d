"""Too little memory on a GPU: where does a run run out of it, and what does it say?

    python benchmarks/gpu_oom.py [--free 6 8 12 16 24 32] [--size 7b] [--model FOLDER] [--short]

Another process holds the rest of the card's memory while `backprop train` trains a model of this shape with
random weights, in bf16 and in 4 bits. One line per run: it recovers, or ends as RUNTIME_GPU_OOM with the next
setting. Any other error is printed as WRONG, and the program exits 1.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from memory_hog import only_free
from workload import write_random_model


def make_rows(path: Path, *, short: bool) -> Path:
    asked, said = (4, 6) if short else (40, 60)
    rows = [
        {"prompt": f"Tell me of {n}. " * asked, "completion": f"It is number {n}. " * said} for n in range(64)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def train(model: Path, rows: Path, *options: str) -> dict[str, Any]:
    """The command line's answer as JSON."""
    asked = f"train --data {rows} --model {model} --steps 3 --max-new-tokens 32 --json".split()
    questions = ["--question", "What is 7?", "--question", "And 8?"]
    command = [sys.executable, "-P", "-m", "backpropagate", *asked, *questions, *options]
    done = subprocess.run(command, capture_output=True, text=True)
    return json.loads(done.stdout or json.dumps({"error": {"code": "no answer", "message": done.stderr}}))


def verdict(run: dict[str, Any]) -> tuple[bool, str]:
    error: dict[str, Any] | None = run.get("error")
    if error:
        right = error.get("code") == "RUNTIME_GPU_OOM" and bool(error.get("next"))
        return right, f"{error.get('code')}: {error['message'][:150]} → {error.get('next')}"
    told = [text for text in run["warnings"] if "memory" in text.lower()]
    return "RUNTIME_ERROR" not in str(told), f"{run['status']}; {' | '.join(told) or 'no lack of memory'}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--free", type=float, nargs="+", default=[6, 8, 12, 16, 24, 32], help="GiB")
    parser.add_argument("--size", default="7b")
    parser.add_argument("--model", type=Path, help="a folder instead of a model with random weights")
    parser.add_argument("--short", action="store_true", help="rows of a tenth of the length")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        rows = make_rows(Path(scratch) / "rows.jsonl", short=asked.short)
        os.environ["BACKPROPAGATE_HOME"] = f"{scratch}/home"
        os.environ["BACKPROPAGATE_RUNTIME_DIR"] = f"{scratch}/slots"
        model = asked.model or write_random_model(Path(scratch) / "model", asked.size)
        all_right = True
        for gib in asked.free:
            for name, options in (("bf16", ()), ("4 bits", ("--load-in-4bit",))):
                with only_free(gib):
                    right, said = verdict(train(model, rows, *options))
                all_right &= right
                print(f"{'right' if right else 'WRONG'}  {gib:g} GiB free, {name}: {said}", flush=True)
    sys.exit(0 if all_right else 1)


if __name__ == "__main__":
    main()
