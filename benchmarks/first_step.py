"""From submitting a run to its first step, beside what cannot be avoided: imports, and loading the model.

    python benchmarks/first_step.py MODEL_FOLDER [--rounds 5] [--engine auto]

Both in processes of their own, in turn. The floor imports torch, transformers, peft and TRL's trainer and
loads tokenizer and model; the run does what its engine needs of that, and all the rest up to the end of its
first step.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import anyio

FLOOR = """
import sys, os
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTTrainer, SFTConfig
AutoTokenizer.from_pretrained(sys.argv[1])
AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32)
"""
ROW = {"messages": [{"role": "user", "content": "Say it."}, {"role": "assistant", "content": "It is said."}]}


def floor_s(model: str) -> float:
    before = time.perf_counter()
    subprocess.run([sys.executable, "-c", FLOOR, model], check=True, capture_output=True)
    return time.perf_counter() - before


async def first_step_s(model: str, engine: str, folder: Path) -> float:
    from backpropagate import TrainingService
    from backpropagate.training.requests.train import train_spec

    data = folder / "rows.jsonl"
    data.write_text((json.dumps(ROW) + "\n") * 16)
    service = TrainingService()
    before = time.perf_counter()
    arguments = {"dataset": str(data), "model": model, "engine": engine, "steps": 1, "batch_size": 4}
    run = await service.submit(train_spec(arguments=arguments))
    seconds = 0.0
    async for events in service.watch(run.run_id):
        if not seconds and any(event.kind == "step" for event in events):
            seconds = time.perf_counter() - before
    return seconds


def main(model: str, rounds: int, engine: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.environ["BACKPROPAGATE_HOME"] = f"{folder}/home"
        os.environ["BACKPROPAGATE_RUNTIME_DIR"] = f"{folder}/slots"
        pairs = [
            (anyio.run(first_step_s, model, engine, Path(folder)), floor_s(model)) for _ in range(rounds + 1)
        ][1:]  # the first round warms the disk's cache
    ratios = [ours / floor for ours, floor in pairs]
    ours_s, floor_s_ = (statistics.median(side) for side in zip(*pairs, strict=True))
    print(f"first step {ours_s:.1f} s, floor {floor_s_:.1f} s")
    print(f"ratio: {statistics.median(ratios):.2f} (least {min(ratios):.2f}, most {max(ratios):.2f})")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--engine", default="auto", choices=["auto", "trl"])
    asked = parser.parse_args()
    main(asked.model, asked.rounds, asked.engine)
