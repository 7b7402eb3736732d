"""From submitting a run to its first step, beside what cannot be avoided: imports, and loading the model.

    python benchmarks/first_step.py MODEL_FOLDER [rounds]

Both in processes of their own, in turn. The floor imports torch, transformers, peft and TRL's trainer and
loads tokenizer and model; the run does that, and all the rest up to the end of its first step.
"""

from __future__ import annotations

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


async def first_step_s(model: str, folder: Path) -> float:
    from backpropagate import TrainingService
    from backpropagate.training.requests.train import train_spec

    data = folder / "rows.jsonl"
    data.write_text((json.dumps(ROW) + "\n") * 16)
    service = TrainingService()
    before = time.perf_counter()
    spec = train_spec(arguments={"dataset": str(data), "model": model, "steps": 1, "batch_size": 4})
    run = await service.submit(spec)
    seconds = 0.0
    async for events in service.watch(run.run_id):
        if not seconds and any(event.kind == "step" for event in events):
            seconds = time.perf_counter() - before
    return seconds


def main(model: str, rounds: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.environ["BACKPROPAGATE_HOME"] = f"{folder}/home"
        os.environ["BACKPROPAGATE_RUNTIME_DIR"] = f"{folder}/slots"
        pairs = [(anyio.run(first_step_s, model, Path(folder)), floor_s(model)) for _ in range(rounds + 1)][
            1:
        ]
    ratios = [ours / floor for ours, floor in pairs]
    ours_s, floor_s_ = (statistics.median(side) for side in zip(*pairs, strict=True))
    print(f"first step {ours_s:.1f} s, floor {floor_s_:.1f} s")
    print(f"ratio: {statistics.median(ratios):.2f} (least {min(ratios):.2f}, most {max(ratios):.2f})")


main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 5)
