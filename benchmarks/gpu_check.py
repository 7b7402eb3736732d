"""Does training work on this GPU? Through the real service and a real worker, in bf16 and in 4 bits.

    python benchmarks/gpu_check.py [--hidden 1536 --layers 8]

Builds a Llama of that shape with random weights, trains a LoRA on it by the same way as everything else, and
prints losses, tokens per second, peak memory, and what `gpu_status` says meanwhile.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import anyio
from workload import random_llama

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))


async def train(model: Path, data: Path, four_bits: bool, steps: int) -> None:
    from backpropagate import TrainingService
    from backpropagate.tools.gpu_status import GpuStatus
    from backpropagate.training.config.results import TrainResult
    from backpropagate.training.events import Step
    from backpropagate.training.hardware.reading import read_hardware
    from backpropagate.training.requests.train import train_spec

    service = TrainingService()
    arguments = {
        "dataset": str(data),
        "model": str(model),
        "steps": steps,
        "learning_rate": 1e-3,
        "load_in_4bit": four_bits,
        "device": "cuda",
        "questions": ["What is zorvex?"],
        "max_new_tokens": 16,
    }
    run = await service.submit(train_spec(arguments=arguments))
    losses: list[float] = []
    speeds: list[float] = []
    async for events in service.watch(run.run_id):
        for event in events:
            if not isinstance(event, Step):
                continue
            losses.append(event.loss)
            speeds.append(event.tokens_per_s or 0.0)
            if event.step == steps // 2:
                print(GpuStatus(hardware=read_hardware()).text())
    view = await service.get(run.run_id)
    folder = Path(view.run_folder)
    print(f"{'4 bits' if four_bits else 'bf16'}: {view.status}", view.error or "")
    if view.status != "completed":
        print((folder / "worker.log").read_text()[-3000:])
        return
    result = view.result
    assert isinstance(result, TrainResult)
    for warning in view.warnings:
        print(f"  warning: {warning}")
    for answer in view.answers:
        print(f"  before: {answer.before!r}\n  after: {answer.after!r}")
    print(f"  loss {losses[0]:.3f} → {losses[-1]:.3f} in {len(losses)} steps, {speeds[-1]:.0f} tokens/s")
    print(
        f"  {result.engine} engine on {result.device}, peak memory {result.peak_memory_mib} MiB, "
        f"plan {folder / 'plan.json'}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hidden", type=int, default=1536)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--steps", type=int, default=30)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["BACKPROPAGATE_HOME"] = f"{scratch}/home"
        os.environ["BACKPROPAGATE_RUNTIME_DIR"] = f"{scratch}/slots"
        from facts import write_dataset

        model = random_llama(Path(scratch) / "model", asked.hidden, asked.layers)
        data = write_dataset(Path(scratch) / "facts.jsonl")
        anyio.run(train, model, data, False, asked.steps)
        if find_spec("bitsandbytes") is None:
            print("4 bits: NOT CHECKED, bitsandbytes is not installed")
        else:
            anyio.run(train, model, data, True, asked.steps)


if __name__ == "__main__":
    main()
