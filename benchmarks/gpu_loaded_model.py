"""Does a loaded model measure and answer as transformers and PEFT do, on this GPU?

    python benchmarks/gpu_loaded_model.py [--hidden 1024 --layers 8 --device cuda]      about two minutes

Opens a random Llama with each engine and trains it for some steps. Then it compares, with the adapter off and
on, the loss of each example and the greedy answers with those of `AutoModelForCausalLM` + `PeftModel` loaded
from the saved adapter. The reference of the losses is fp32; beside each error stands that of transformers in
bf16. Exits with 1 if a loss differs more than twice as much as transformers' own, or no answer is the same.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from our_side import plan_of
from workload import random_llama, table

from backpropagate.training.config.specs import LoraGroup
from backpropagate.training.data.tokens.example import Example
from backpropagate.training.engine.loop.checkpoints import Checkpoints
from backpropagate.training.engine.open_model import open_model
from backpropagate.training.engine.plan import Data
from backpropagate.training.events import never_stop, no_report

PROMPTS = ["What is zorvex?", [{"role": "user", "content": "Say it."}], "one two three four five"]
NEW_TOKENS = 24


def examples(count: int, seed: int = 0) -> list[Example]:
    generator = torch.Generator().manual_seed(seed)
    made: list[Example] = []
    for index in range(count):
        ids = torch.randint(2, 258, (24 + 37 * index % 200,), generator=generator).tolist()
        made.append(Example(ids, [-100] * (len(ids) // 2) + ids[len(ids) // 2 :]))
    return made


def reference(folder: Path, adapter: Path | None, dtype: torch.dtype, device: str) -> Any:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).to(device)
    return (PeftModel.from_pretrained(model, str(adapter)) if adapter else model).eval()


@torch.no_grad()
def losses_of(model: Any, rows: list[Example]) -> torch.Tensor:
    """The sum of the cross-entropies of each row, one at a time."""
    sums: list[float] = []
    for row in rows:
        logits = model(input_ids=torch.tensor([row.input_ids], device=model.device)).logits[0, :-1].float()
        labels = torch.tensor(row.labels[1:], device=model.device)
        sums.append(float(torch.nn.functional.cross_entropy(logits, labels, reduction="sum")))
    return torch.tensor(sums)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hidden", type=int, default=1024)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--device", default="cuda")
    asked = parser.parse_args()
    rows, failed = [], False
    with tempfile.TemporaryDirectory() as scratch:
        for engine, tied in (("packed", False), ("packed", True), ("autograd", False), ("trl", False)):
            place = Path(scratch) / f"{engine}{', tied' * tied}"
            folder = random_llama(place / "model", asked.hidden, asked.layers, tied=tied)
            row, wrong = compare(engine, folder, place, asked)
            rows.append([place.name, *row])
            failed |= wrong
    header = [
        "engine",
        "base: error / transformers' bf16",
        "tuned: error / transformers' bf16",
        "answers alike",
    ]
    print(table([header, *rows]))
    return int(failed)


def compare(engine: str, folder: Path, scratch: Path, asked: argparse.Namespace) -> tuple[list[str], bool]:
    precision = "bfloat16" if asked.device == "cuda" else "float32"
    plan = plan_of(
        asked.device, precision, model=folder, adapter=scratch / "adapter", engine=engine, steps=asked.steps,
        batch_size=4, learning_rate=1e-3, lora=LoraGroup(r=8, alpha=16),
    )  # fmt: skip
    model, train, held_out = open_model(plan, no_report), examples(64), examples(12, seed=1)
    model.train(Data(train, held_out), no_report, never_stop, Checkpoints(scratch / "checkpoints"))
    tuned, values = [loss.total for loss in model.losses(held_out)], model.adapter_values()
    answers = [model.generate(PROMPTS, max_new_tokens=NEW_TOKENS, adapter=on) for on in (False, True)]
    model.set_adapter_values(torch.zeros_like(values))
    base = [loss.total for loss in model.losses(held_out)]
    cells, alike, wrong = [], 0, False
    for ours, adapter, said in (
        (base, None, answers[0]),
        (tuned, plan.adapter, answers[1]),
    ):
        exact = losses_of(reference(folder, adapter, torch.float32, asked.device), held_out)
        theirs_model = reference(folder, adapter, getattr(torch, precision), asked.device)
        theirs = losses_of(theirs_model, held_out)
        error, allowed = relative(torch.tensor(ours), exact), relative(theirs, exact)
        wrong |= error > 2 * allowed + 1e-5
        cells.append(f"{error:.1e} / {allowed:.1e}")
        alike += sum(a == b for a, b in zip(said, by_transformers(theirs_model, folder), strict=True))
    return [*cells, f"{alike} of {2 * len(PROMPTS)}"], wrong or alike == 0


def relative(ours: torch.Tensor, exact: torch.Tensor) -> float:
    return float((ours - exact).abs().max() / exact.abs().mean())


def by_transformers(model: Any, folder: Path) -> list[str]:
    from backpropagate.training.engine.generate import encoded, stop_tokens
    from backpropagate.training.models.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(folder)
    said: list[str] = []
    for prompt in PROMPTS:
        ids = torch.tensor([encoded(tokenizer, prompt)], device=model.device)
        out = model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=NEW_TOKENS, do_sample=False,
            eos_token_id=sorted(stop_tokens(model, tokenizer)), pad_token_id=tokenizer.pad_token_id,
        )  # fmt: skip
        said.append(tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True).strip())
    return said


if __name__ == "__main__":
    sys.exit(main())
