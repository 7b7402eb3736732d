"""The engines of this package on one GPU, one after the other, through the service as every run goes.

    python benchmarks/gpu_engines.py [--engines auto trl unsloth] [--steps 60] [--hidden 896 --layers 24]

Builds a Qwen2 of that shape (by default Qwen2.5-0.5B's) with random weights and as many rows of text as the
steps need, of one length or of mixed lengths, and trains a LoRA of rank 16 on all linear layers of it with
each engine. Printed of each: useful tokens a second in the second half of its steps, seconds from the start
of the worker to the end of the first step, peak memory, and the first and the last loss, which must agree.
`unsloth` needs BACKPROPAGATE_UNSLOTH__PYTHON. Between tokens and time there is no more than one step's error.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Any

import anyio

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

BATCH = 8


def build(folder: Path, hidden: int, layers: int) -> Path:
    """A random Qwen2 on the tiny model's tokenizer of bytes, with Qwen2.5's number of logits."""
    import torch
    from tiny_model import build_tiny_model
    from transformers import Qwen2Config, Qwen2ForCausalLM

    build_tiny_model(folder)
    shape = Qwen2Config(
        vocab_size=151_936,
        hidden_size=hidden,
        intermediate_size=4864 * hidden // 896,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        eos_token_id=1,
        pad_token_id=1,
    )
    torch.manual_seed(0)
    Qwen2ForCausalLM(shape).to(torch.bfloat16).save_pretrained(folder)
    return folder


def write_rows(path: Path, rows: int, mixed: bool) -> Path:
    """Text of 500 bytes, or of 100 to 900, which are as many tokens."""
    draw = random.Random(0)
    with path.open("w", encoding="utf-8") as file:
        for _ in range(rows):
            length = draw.randint(100, 900) if mixed else 500
            file.write(json.dumps({"text": "".join(draw.choices("abcdefgh ", k=length))}) + "\n")
    return path


async def train(engine: str, model: Path, data: Path, steps: int) -> dict[str, Any]:
    from backpropagate import TrainingService
    from backpropagate.training.requests.train import train_spec

    service = TrainingService()
    arguments = {
        "dataset": str(data),
        "model": str(model),
        "engine": engine,
        "steps": steps,
        "batch_size": BATCH,
        "lora_r": 16,
        "max_seq_length": 2048,
        "device": "cuda",
    }
    run = await service.submit(train_spec(arguments=arguments))
    async for _ in service.watch(run.run_id):
        pass
    view = await service.get(run.run_id)
    folder = Path(view.run_folder)
    if view.status != "completed":
        return {"failed": f"{view.error}\n{(folder / 'worker.log').read_text()[-2500:]}"}
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    times = {e["step"]: datetime.fromisoformat(e["t"]).timestamp() for e in events if e["kind"] == "step"}
    result = service.store.find(run.run_id).state().result or {}
    begun = datetime.fromisoformat(view.started_at or view.created_at).timestamp()
    half, tokens = steps // 2, sum(len(json.loads(row)["text"]) for row in data.open(encoding="utf-8"))
    return {
        "engine": result["engine"],
        "reason": result["engine_reason"],
        "tokens/s": round(tokens * (steps - half) / steps / (times[steps] - times[half])),
        "first step s": round(times[1] - begun, 1),
        "phases began at s": {
            e["message"][:40]: round(datetime.fromisoformat(e["t"]).timestamp() - begun, 1)
            for e in events
            if e["kind"] == "phase"
        },
        "peak MiB": result["peak_memory_mib"],
        "losses": (result["first_loss"], result["final_loss"]),
        "held out": (result["eval_loss_before"], result["eval_loss"]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--engines", nargs="+", default=["auto", "trl", "unsloth"])
    parser.add_argument("--hidden", type=int, default=896)
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--steps", type=int, default=60)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["BACKPROPAGATE_HOME"] = f"{scratch}/home"
        os.environ["BACKPROPAGATE_RUNTIME_DIR"] = f"{scratch}/slots"
        model = build(Path(scratch) / "model", asked.hidden, asked.layers)
        for mixed in (False, True):
            data = write_rows(Path(scratch) / f"rows-{mixed}.jsonl", asked.steps * BATCH, mixed)
            print(f"{'mixed lengths' if mixed else 'one length'}, {asked.steps} steps of {BATCH} rows")
            for engine in asked.engines:
                print(f"  {engine}: {anyio.run(train, engine, model, data, asked.steps)}", flush=True)


main()
