"""How often a verdict is right: facts that were learnt, and the same answers shuffled among the questions.

    python benchmarks/verdict.py [seeds] [MODEL] [steps] [learning_rate]

`seeds` is their number, or the first and the last one: `5-9`, to divide them among processes.

Without MODEL a tiny one is made that learns slowly, so that most of what it learns is the form of answers.
"""

from __future__ import annotations

import json
import os
import random
import sys
import tempfile
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "support"))

from facts import write_dataset  # noqa: E402
from tiny_model import build_quick_learner  # noqa: E402

from backpropagate import Trainer  # noqa: E402


def shuffled(source: Path, target: Path, seed: int) -> Path:
    """The rows of `source` with their answers in another order."""
    rows = [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines()]
    answers = [row["messages"][-1]["content"] for row in rows]
    random.Random(seed).shuffle(answers)
    for row, answer in zip(rows, answers, strict=True):
        row["messages"][-1]["content"] = answer
    target.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return target


def main(seeds: range, model: str | None, steps: int, rate: float) -> None:
    found: dict[str, Counter[str]] = {"facts": Counter(), "shuffled": Counter()}
    shares: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["BACKPROPAGATE_HOME"] = f"{folder}/home"
        os.environ["BACKPROPAGATE_LOG_LEVEL"] = "ERROR"
        name = model or str(build_quick_learner(Path(folder) / "model"))
        facts = write_dataset(Path(folder) / "facts.jsonl")
        for seed in seeds:
            other = shuffled(facts, Path(folder) / f"shuffled-{seed}.jsonl", seed)
            for kind, dataset in (("facts", facts), ("shuffled", other)):
                run = Trainer(name, seed=seed, learning_rate=rate).train(dataset, steps=steps)
                verdict = run.result.verdict
                found[kind][verdict.verdict if verdict else "none"] += 1
                shares.append((verdict.seconds if verdict else 0.0) / run.duration_s)
                print(f"{kind} {seed}: {verdict.sentence if verdict else 'no verdict'}", flush=True)
    for kind, counts in found.items():
        print(f"{kind}: {dict(counts)}")
    print(f"share of the run's time: at most {max(shares):.1%}, mean {sum(shares) / len(shares):.1%}")


def seeds_of(given: str) -> range:
    first, dash, last = given.partition("-")
    return range(int(first), int(last) + 1) if dash else range(int(given))


if __name__ == "__main__":
    given = sys.argv[1:]
    main(
        seeds_of(given[0] if given else "20"),
        given[1] if len(given) > 1 and given[1] != "tiny" else None,
        int(given[2]) if len(given) > 2 else 250,
        float(given[3]) if len(given) > 3 else 1e-2,
    )
