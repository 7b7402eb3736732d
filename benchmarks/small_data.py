"""What a small dataset teaches: losses and right answers of a training on the quick start's first rows.

    python benchmarks/small_data.py MODEL [--rows 60] [learning_rate=2e-4 epochs=3 held_out=0 …]

Settings that are not given are chosen as for everyone. Six questions ask for facts of the rows in other
words; an answer is right if it contains the fact.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from importlib.resources import files
from pathlib import Path
from typing import Any

from backpropagate import Trainer, examples
from backpropagate.training.config.results import TrainResult
from backpropagate.training.runs.folder import RunFolder


def setting(text: str) -> tuple[str, Any]:
    name, _, value = text.partition("=")
    return name, json.loads(value)


def first_rows(count: int, folder: Path) -> Path:
    lines = (files(examples) / "quickstart.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    path = folder / "rows.jsonl"
    path.write_text("".join(lines[:count]), encoding="utf-8")
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--rows", type=int, default=60)
    parser.add_argument("settings", nargs="*", type=setting, metavar="NAME=VALUE")
    asked = parser.parse_args()
    expected = json.loads((files(examples) / "quickstart_questions.json").read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as scratch:
        trainer = Trainer(
            str(asked.model.absolute()),
            output_dir=Path(scratch) / "home",
            questions=[item["question"] for item in expected],
            **dict(asked.settings),
        )
        run = trainer.train(first_rows(asked.rows, Path(scratch)))
        folder = RunFolder(run.run_folder)
        plan, result = folder.plan(), folder.state().result
        assert plan is not None and isinstance(result, TrainResult)
        print(f"learning_rate {plan['learning_rate']:g}, epochs {plan['epochs']:g}: {run.steps} steps")
        print(f"training loss {result.first_loss:.4g} → {result.final_loss:.4g}")
        print(f"held-out loss {result.eval_loss_before} → {result.eval_loss} on {result.held_out} rows")
        for start in range(0, run.steps, max(1, run.steps // 10)):
            part = run.losses[start : start + max(1, run.steps // 10)]
            print(f"  steps {start + 1} to {start + len(part)}: mean loss {sum(part) / len(part):.4f}")
        right = [
            item["expect"] in answer["after"] for item, answer in zip(expected, run.answers, strict=True)
        ]
        for answer in run.answers:
            print(f"  {answer['question']} → {answer['after']}")
        print(f"{sum(right)} of {len(right)} answers right, {run.duration_s:.0f} s")


if __name__ == "__main__":
    main()
