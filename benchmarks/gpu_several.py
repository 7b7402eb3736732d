"""Speed of one training on 1, 2, 4 GPUs of this host: the same run through `Trainer`, one after the other.

    python benchmarks/gpu_several.py --size 7b --gpus 1 2 4 --examples 32 --steps 60
    python benchmarks/gpu_several.py --size tiny --device cpu --gpus 1 2 --steps 20     the program itself

Qwen2.5 shapes with random bf16 weights in a temporary folder, text of lognormal lengths by the byte tokenizer
of the tests, LoRA r=16 on all linear modules. Each number of GPUs runs in a process of its own, with the same
seed, and so with the same examples in each step; the losses of the last step are printed beside the speeds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from workload import make_importable, table, write_random_model, write_rows

GOALS = {2: 1.9, 4: 3.7}


def measured(model: Path, folder: Path, gpus: int, device: str, examples: int, steps: int) -> dict[str, Any]:
    """One run, in this process and in those that it starts."""
    make_importable()
    from backpropagate import Trainer
    from backpropagate.training.events import Step

    seen: list[Step] = []

    def after_step(event: object) -> None:
        if isinstance(event, Step):
            seen.append(event)

    trainer = Trainer(
        str(model), batch_size=examples, held_out=0.0, gpus=gpus, device=device, report_to="none",
    )  # fmt: skip
    result = trainer.train(folder / "rows.jsonl", steps=steps, callback=after_step).result
    rates = [event.tokens_per_s for event in seen[len(seen) // 2 :]]
    return {
        "gpus": gpus, "device": result.device_name, "tok/s": round(statistics.median(rates)),
        "last loss": seen[-1].loss, "peak GiB": round((result.peak_memory_mib or 0) / 1024, 1),
    }  # fmt: skip


def in_process(model: Path, folder: Path, gpus: int, options: argparse.Namespace) -> dict[str, Any]:
    command = [sys.executable, __file__, "--here", str(folder), "--model", str(model), "--gpus", str(gpus)]
    command += [
        "--device",
        options.device,
        "--examples",
        str(options.examples),
        "--steps",
        str(options.steps),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{gpus} GPUs failed:\n{done.stderr[-4000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--size", default="7b")
    parser.add_argument("--gpus", nargs="+", type=int, default=[1, 2, 4])
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--examples", type=int, default=32, help="of an optimizer step")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--model", type=Path, help="a folder instead of a model with random weights")
    parser.add_argument("--here", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        found = measured(
            options.model, options.here, options.gpus[0], options.device, options.examples, options.steps
        )
        print(json.dumps(found))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = options.model or write_random_model(folder / "model", options.size)
        write_rows(folder / "rows.jsonl")
        results = [in_process(model, folder, gpus, options) for gpus in options.gpus]
    first = results[0]["tok/s"]
    rows = [
        [*map(str, result.values()), f"{result['tok/s'] / first:.2f}", str(GOALS.get(result["gpus"], ""))]
        for result in results
    ]
    print(table([[*results[0], "times the first", "goal"], *rows]))


if __name__ == "__main__":
    main()
