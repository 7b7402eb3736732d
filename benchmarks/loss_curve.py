"""300 steps of a real model on real text: loss curves over each other, of our packed engine and of TRL.

    python benchmarks/loss_curve.py MODEL_FOLDER [--steps 300]      took an hour at a load of 10
    python benchmarks/loss_curve.py MODEL_FOLDER --device cuda --sides fp8 fp32 packed

Sides are the packed engine ("packed"), the same with its base in FP8 ("fp8") or with all in fp32 ("fp32"),
and TRL ("trl"); the others are compared with the last. On a CPU all is in fp32, and FP8 is computed by the
reference in plain torch. On a GPU the packed engine is in bf16: how far "fp32" is from it tells what a gap
of "fp8" means.

The text is what Python ships as `pydoc_data.topics`, in rows of 24 to 72 tokens (48 on average); every 12th
section of it is held out. All sides are called through the door that every run goes through, with the same
plan: 4 rows a step in the same order, LoRA r=16 on all linear modules, linear schedule with 5 warm-up steps,
clipping at 1, one CPU thread. All draw A by the same code from the same seed, and B is zero, so they begin at
the same point to the last bit. All adapters are then loaded by plain PEFT on the unrounded base, and judged
by one code in fp32.
"""

from __future__ import annotations

import argparse
import itertools
import math
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

from workload import make_importable, table

make_importable()

import torch  # noqa: E402

from backpropagate.training.config.specs import LoraGroup  # noqa: E402
from backpropagate.training.engine.loop.checkpoints import Checkpoints  # noqa: E402
from backpropagate.training.engine.plan import Data, Example, Plan  # noqa: E402
from backpropagate.training.engine.run import run_engine  # noqa: E402
from backpropagate.training.events import Event, Step  # noqa: E402
from backpropagate.training.planning.memory_choice import TOKENS  # noqa: E402

ROW_TOKENS = (24, 56, 40, 72)
"""Of one row after the other."""
HELD_OUT_EVERY = 12  # sections
HELD_OUT_ROWS = 128
GOAL = 0.005
SIDES: dict[str, dict[str, Any]] = {
    "packed": {},
    "fp8": {"base_precision": "fp8"},
    "fp32": {"precision": "float32"},
    "trl": {"engine": "trl"},
}


def rows_of_text(model: Path, training_rows: int) -> Data:
    """Rows of real text, all of their tokens to be learnt; held-out rows come from sections of their own."""
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(model, local_files_only=True)
    kept: tuple[list[Example], list[Example]] = ([], [])
    for number, name in enumerate(sorted(topics)):
        ids: list[int] = tokenizer(re.sub(r"\s+", " ", topics[name]))["input_ids"]
        kept[number % HELD_OUT_EVERY == 0].extend(Example(row, row) for row in cut(ids))
    train, held_out = kept
    assert len(train) >= training_rows and len(held_out) >= HELD_OUT_ROWS, (len(train), len(held_out))
    # Neighbours in the text are far apart in the training.
    spread = [row for first in range(97) for row in train[first::97]]
    return Data(spread[:training_rows], held_out[:HELD_OUT_ROWS])


def cut(ids: list[int]) -> Iterator[list[int]]:
    """`ids` in rows; a last one of a few tokens is left out."""
    start = 0
    for length in itertools.cycle(ROW_TOKENS):
        if len(ids) - start < min(ROW_TOKENS):
            return
        yield ids[start : start + length]
        start += length


@dataclass
class Curve:
    """What one engine's training came to."""

    losses: list[float]
    seconds: float
    held_out: float = math.nan


def trained(side: str, plan: Plan, data: Data, folder: Path) -> Curve:
    losses: list[float] = []

    def report(event: Event) -> None:
        if isinstance(event, Step):
            losses.append(event.loss)
            if event.step % 50 == 0:
                print(f"{side}: step {event.step}, loss {event.loss:.4f}", file=sys.stderr)

    started = time.monotonic()
    plan = plan.changed(adapter=folder / side, **SIDES[side])
    run_engine(plan, data, report, lambda: False, Checkpoints(folder / f"checkpoints-{side}"))
    return Curve(losses, time.monotonic() - started)


def held_out_loss(model: Path, adapter: Path | None, rows: Sequence[Example], device: str) -> float:
    """Mean cross-entropy per predicted token, by transformers and PEFT, one row at a time."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    judge: Any = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    if adapter is not None:
        judge = PeftModel.from_pretrained(judge, str(adapter))
    judge.eval().to(device)
    total, count = 0.0, 0
    with torch.inference_mode():
        for row in rows:
            ids = torch.tensor([row.input_ids], device=device)
            logits = judge(input_ids=ids).logits[0, :-1]
            total += torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum").item()
            count += ids.shape[1] - 1
    return total / count


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--learning-rate", type=float, default=2e-4)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--sides", nargs="+", default=["packed", "trl"], choices=list(SIDES))
    arguments = parser.parse_args()
    device = arguments.device
    data = rows_of_text(arguments.model, arguments.steps * arguments.batch_size)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plan = Plan.from_record(
            dict(
                model=arguments.model,
                adapter=folder,
                lora=LoraGroup(r=16, alpha=32),
                steps=arguments.steps,
                batch_size=arguments.batch_size,
                learning_rate=arguments.learning_rate,
                checkpoint_every_s=math.inf,
                order="as_given",
                threads=1,
                engine="packed",
                device=device,
                precision="bfloat16" if device == "cuda" else "float32",
                recompute="nothing",
                micro_batch_tokens=TOKENS[0],
            )
        )
        # The engines' own evaluation takes the first rows only; the verdict's is below.
        trimmed = Data(data.train, data.held_out[:4])
        curves = {side: trained(side, plan, trimmed, folder) for side in arguments.sides}
        before = held_out_loss(arguments.model, None, data.held_out, device)
        for side, curve in curves.items():
            curve.held_out = held_out_loss(arguments.model, folder / side, data.held_out, device)
    return verdict(curves, before, plan, data)


def verdict(curves: dict[str, Curve], before: float, plan: Plan, data: Data) -> int:
    """Print the curves and how far they are from the last; 0 if the held-out losses are near enough."""
    *others, last = curves
    to = curves[last]
    shown = [0, *range(9, len(to.losses), 10)]
    print(table([["step", *curves]] + [[str(i + 1), *_at(curves, i)] for i in shown]))
    tokens, rate = sum(len(row.input_ids) for row in data.train), plan.training.learning_rate
    print(f"\n{len(to.losses)} steps of {plan.batch_size} rows, {tokens} tokens, lr {rate:g}, {plan.device}")
    print(f"held-out loss on {len(data.held_out)} rows: {before:.5f} before")
    print(f"{last}: {to.held_out:.5f}, {to.seconds:.0f} s")
    missed = False
    for side in others:
        curve = curves[side]
        apart = [abs(a - b) / b for a, b in zip(curve.losses, to.losses, strict=True)]
        gap = (curve.held_out - to.held_out) / to.held_out
        missed |= abs(gap) > GOAL
        print(
            f"{side}: {curve.held_out:.5f}, {gap:+.4%} of {last} (goal {GOAL:.1%}"
            f"{': MISSED' if abs(gap) > GOAL else ''}), {curve.seconds:.0f} s; relative difference of a "
            f"step's loss: mean {sum(apart) / len(apart):.1e}, largest {max(apart):.1e}"
        )
    return int(missed)


def _at(curves: dict[str, Curve], step: int) -> list[str]:
    return [f"{curve.losses[step]:.5f}" for curve in curves.values()]


if __name__ == "__main__":
    sys.exit(main())
