"""Speed of one training on 1, 2, 4 GPUs of this host: the same run through `Trainer`, one after the other.

    python benchmarks/gpu_several.py --size 7b --gpus 1 2 4 --examples 32 --steps 60
    python benchmarks/gpu_several.py --size 7b --gpus 2 --weights auto sharded host     where the weights are
    python benchmarks/gpu_several.py --size 7b --gpus 1 2 --steps 24 --repeats 3        in three rounds
    python benchmarks/gpu_several.py --size tiny --device cpu --gpus 1 2 --steps 20     the program itself

Qwen2.5 shapes with random bf16 weights in a temporary folder, text of lognormal lengths by the byte tokenizer
of the tests, LoRA r=16 on all linear modules. Each case runs in a process of its own, with the same
seed, and so with the same examples in each step; the losses of the last step are printed beside the speeds.
Speeds are those of the second half of the steps, by the times of their events. With --repeats all cases are
gone through several times in turn: ratios are of cases of one round, shown as median (least to greatest).
"peak" is of the first process's tensors; "held" is the most that the driver saw in use of each GPU, with what
CUDA and NCCL take, read after each step of the first half and after the last.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from run_speed import speed_of
from workload import make_importable, table, write_random_model, write_rows

GOALS = {2: 1.9, 4: 3.7}


def measured(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """One run, in this process and in those that it starts."""
    make_importable()
    from backpropagate import Trainer
    from backpropagate.training.events import Step

    seen: list[Step] = []
    held: list[list[float]] = []

    def after_step(event: object) -> None:
        if isinstance(event, Step):
            seen.append(event)
            if 2 * event.step <= options.steps or event.step == options.steps:  # not while it is measured
                held.append(in_use())

    trainer = Trainer(
        str(options.model), batch_size=options.examples, held_out=0.0, gpus=options.gpus[0],
        weights=options.weights[0], load_in_4bit=options.bits == 4, device=options.device, report_to="none",
    )  # fmt: skip
    run = trainer.train(folder / "rows.jsonl", steps=options.steps, callback=after_step)
    result, plan = run.result, json.loads((run.adapter_path.parent / "plan.json").read_text())
    speed = speed_of(run.adapter_path.parent)
    return {
        "gpus": options.gpus[0], "weights": options.weights[0], "device": result.device_name,
        "recompute": plan["recompute"], "resident": plan["resident_layers"],
        "tok/s": round(speed.tokens_per_s), "tok/step": round(speed.tokens_per_step),
        "last loss": seen[-1].loss,
        "planned GiB": round((plan["planned_peak_mib"] or 0) / 1024, 1),
        "peak GiB": round((result.peak_memory_mib or 0) / 1024, 1),
        "held GiB": " ".join(f"{max(of_one):.1f}" for of_one in zip(*held, strict=True)),
    }  # fmt: skip


def goal_of(result: dict[str, Any]) -> str:
    return str(GOALS.get(result["gpus"], "")) if result["weights"] == "auto" else ""


def in_use() -> list[float]:
    """GiB of each GPU of this machine."""
    from backpropagate.training.hardware.gpu import read_gpus

    return [(gpu.memory_used_mib or 0) / 1024 for gpu in read_gpus().gpus]


def in_process(
    model: Path, folder: Path, gpus: int, weights: str, options: argparse.Namespace
) -> dict[str, Any]:
    given = {"gpus": gpus, "weights": weights, "bits": options.bits, "device": options.device}
    given |= {"examples": options.examples, "steps": options.steps, "model": model, "here": folder}
    command = [sys.executable, __file__]
    command += [word for name, value in given.items() for word in (f"--{name}", str(value))]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{gpus} GPUs, weights={weights} failed:\n{done.stderr[-4000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def medians(rounds: list[list[dict[str, Any]]]) -> list[list[str]]:
    """A line for each case; its ratio is to the first case of the same round."""
    rows: list[list[str]] = []
    for runs in zip(*rounds, strict=True):
        ratios = [run["tok/s"] / of_round[0]["tok/s"] for run, of_round in zip(runs, rounds, strict=True)]
        line = {**runs[0], "tok/s": round(statistics.median(run["tok/s"] for run in runs))}
        spread = f" ({min(ratios):.2f} to {max(ratios):.2f})" if len(ratios) > 1 else ""
        ratio = f"{statistics.median(ratios):.2f}{spread}"
        rows.append([*map(str, line.values()), ratio, goal_of(line)])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--size", default="7b")
    parser.add_argument("--gpus", nargs="+", type=int, default=[1, 2, 4])
    parser.add_argument("--weights", nargs="+", default=["auto"], help="one after the other, as the setting")
    parser.add_argument("--bits", type=int, default=16, choices=[4, 16])
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--examples", type=int, default=32, help="of an optimizer step")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=1, help="of all cases, in turn")
    parser.add_argument("--model", type=Path, help="a folder instead of a model with random weights")
    parser.add_argument("--here", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        print(json.dumps(measured(options.here, options)))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = options.model or write_random_model(folder / "model", options.size)
        write_rows(folder / "rows.jsonl")
        cases = [
            (gpus, weights)
            for gpus, weights in itertools.product(options.gpus, options.weights)
            if gpus > 1 or weights != "sharded"
        ]
        rounds: list[list[dict[str, Any]]] = []
        for _ in range(options.repeats):
            rounds.append([])
            for gpus, weights in cases:
                rounds[-1].append(in_process(model, folder, gpus, weights, options))
                print(json.dumps(rounds[-1][-1]), flush=True)
    print(table([[*rounds[0][0], "times the first", "goal"], *medians(rounds)]))


if __name__ == "__main__":
    main()
