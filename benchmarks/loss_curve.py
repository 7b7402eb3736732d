"""300 steps of a real model on real text: the loss curves of our packed engine and of TRL, over each other.

    python benchmarks/loss_curve.py MODEL_FOLDER [--steps 300]      took an hour at a load of 10

The text is what Python ships as `pydoc_data.topics`, in rows of 24 to 72 tokens (48 on average); every 12th
section of it is held out. Both engines are called through the door that every run goes through, with the same
plan: 4 rows a step in the same order, LoRA r=16 on all linear modules, linear schedule with 5 warm-up steps,
clipping at 1, fp32 on one thread. Both draw A by the same code from the same seed, and B is zero, so they
begin at the same point to the last bit. Both adapters are then loaded by plain PEFT and judged by one code.
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

from backpropagate.training.config.fields import EngineName  # noqa: E402
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


def trained(engine: EngineName, plan: Plan, data: Data, folder: Path) -> Curve:
    losses: list[float] = []

    def report(event: Event) -> None:
        if isinstance(event, Step):
            losses.append(event.loss)
            if event.step % 50 == 0:
                print(f"{engine}: step {event.step}, loss {event.loss:.4f}", file=sys.stderr)

    started = time.monotonic()
    plan = plan.changed(engine=engine, adapter=folder / engine)
    run_engine(plan, data, report, lambda: False, Checkpoints(folder / f"checkpoints-{engine}"))
    return Curve(losses, time.monotonic() - started)


def held_out_loss(model: Path, adapter: Path | None, rows: Sequence[Example]) -> float:
    """Mean cross-entropy per predicted token, by transformers and PEFT, one row at a time."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    judge: Any = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    if adapter is not None:
        judge = PeftModel.from_pretrained(judge, str(adapter))
    judge.eval()
    total, count = 0.0, 0
    with torch.inference_mode():
        for row in rows:
            ids = torch.tensor([row.input_ids])
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
    arguments = parser.parse_args()
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
                device="cpu",
                recompute="nothing",
                micro_batch_tokens=TOKENS[0],
            )
        )
        # The engines' own evaluation takes the first rows only; the verdict's is below.
        trimmed = Data(data.train, data.held_out[:4])
        curves = {engine: trained(engine, plan, trimmed, folder) for engine in ("packed", "trl")}
        before = held_out_loss(arguments.model, None, data.held_out)
        for engine, curve in curves.items():
            curve.held_out = held_out_loss(arguments.model, folder / engine, data.held_out)
    return verdict(curves["packed"], curves["trl"], before, plan, data)


def verdict(ours: Curve, trl: Curve, before: float, plan: Plan, data: Data) -> int:
    """Print both curves and how far apart they are; 0 if the held-out losses are near enough."""
    apart = [abs(a - b) / b for a, b in zip(ours.losses, trl.losses, strict=True)]
    shown = [0, *range(9, len(apart), 10)]
    rows = [["step", "packed", "TRL", "relative difference"]]
    rows += [[str(i + 1), f"{ours.losses[i]:.5f}", f"{trl.losses[i]:.5f}", f"{apart[i]:.1e}"] for i in shown]
    final = abs(ours.held_out - trl.held_out) / trl.held_out
    tokens, rate = sum(len(row.input_ids) for row in data.train), plan.training.learning_rate
    print(table(rows))
    print(f"\n{len(apart)} steps of {plan.batch_size} rows, {tokens} tokens, lr {rate:g}")
    print(
        f"relative difference of a step's loss: mean {sum(apart) / len(apart):.1e}, largest {max(apart):.1e}"
    )
    print(f"seconds: packed {ours.seconds:.0f}, TRL {trl.seconds:.0f}")
    print(
        f"held-out loss on {len(data.held_out)} rows: {before:.5f} before, packed {ours.held_out:.5f}, "
        f"TRL {trl.held_out:.5f}: {final:.4%} apart (goal {GOAL:.1%}{'' if final <= GOAL else ': MISSED'})"
    )
    return int(final > GOAL)


if __name__ == "__main__":
    sys.exit(main())
