"""Does training work on this GPU? Through the service and its worker, in bf16, FP8, 4 bits, also streaming.

    python benchmarks/gpu_check.py [--hidden 1536 --layers 8]

Builds a Llama of that shape with random weights, trains a LoRA on it by the same way as everything else, and
prints losses, tokens per second, peak memory, and what `gpu_status` says meanwhile. Then it asks the tuned
model.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import anyio
from workload import random_llama

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))


SETTINGS: tuple[dict[str, Any], ...] = (
    {"weights": "auto"},
    {"weights": "host"},
    {"base_precision": "fp8"},
    {"load_in_4bit": True, "weights": "auto"},
    {"load_in_4bit": True, "weights": "host"},
)


async def train(model: Path, data: Path, settings: dict[str, Any], steps: int) -> None:
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
        **settings,
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
    told = ", ".join(f"{name}={value}" for name, value in settings.items())
    print(f"{told}: {view.status}", view.error or "")
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
    await ask(service, run.run_id)


async def ask(service: Any, run_id: str) -> None:
    """What the tuned model says when it is loaded again."""
    from backpropagate.training.config.results import GenerateResult
    from backpropagate.training.files.paths import PathPolicy
    from backpropagate.training.requests.generate import generate_spec

    spec = generate_spec(
        run_id,
        ["What is zorvex?"],
        service.store,
        PathPolicy.from_record(None, service.settings.home),
        max_new_tokens=16,
    )
    asked = await service.submit(spec)
    async for _ in service.watch(asked.run_id):
        pass
    view = await service.get(asked.run_id)
    if isinstance(view.result, GenerateResult):
        print(f"  asked again: {view.result.answers[0].tuned!r}")
    else:
        print(f"  asked again: {view.status} {view.error}")


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
        for settings in SETTINGS:
            anyio.run(train, model, data, settings, asked.steps)


if __name__ == "__main__":
    main()
