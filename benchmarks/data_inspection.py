"""Peak memory and speed of inspecting a large file.

    python benchmarks/data_inspection.py MODEL_FOLDER [--mb 2048] [--folder /tmp]

Writes a JSON Lines file of chat rows, and inspects it in a separate process with the model's tokenizer and
all findings, near duplicates included. Prints that process's peak resident memory and its MB/s, first for a
tenth of the size and then for the whole size: memory should grow little.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

WORKER = """
import resource, sys, time
from pathlib import Path
from backpropagate.training.config.specs import DataGroup
from backpropagate.training.data.report.inspection import inspect
from backpropagate.training.data.tokens.tokenizer_files import TokenizerFiles
start = time.perf_counter()
result = inspect(DataGroup(source=sys.argv[2]), TokenizerFiles(Path(sys.argv[1])))
seconds = time.perf_counter() - start
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(f"{result.rows:>10,} rows {result.size_bytes / 1e6 / seconds:6.1f} MB/s {peak:6.0f} MiB peak")
print(result.tokens)
"""


def write_rows(path: Path, size: int) -> None:
    """Writes chats of one to three exchanges of random words, 1.2 kB each; 1 % of the rows are duplicates."""
    random.seed(1)
    words = [f"{first}{second}" for first in "bcdfghjklm" for second in ("an", "er", "ing", "o", "us", "y")]
    answers = [" ".join(random.choices(words, k=random.randint(20, 120))) for _ in range(5000)]
    written = 0
    with path.open("w") as file:
        while written < size:
            turns = random.choice([1, 1, 2, 3])
            texts = random.choices(answers, k=2 * turns)
            roles = ["user", "assistant"] * turns
            messages = [{"role": role, "content": text} for role, text in zip(roles, texts, strict=True)]
            line = json.dumps({"messages": messages}) + "\n"
            for _ in range(2 if random.random() < 0.01 else 1):
                written += file.write(line)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--mb", type=int, default=2048)
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        for size in (arguments.mb * 100_000, arguments.mb * 1_000_000):
            path = Path(name) / "chats.jsonl"
            write_rows(path, size)
            subprocess.run([sys.executable, "-c", WORKER, arguments.model, str(path)], check=True)


if __name__ == "__main__":
    main()
