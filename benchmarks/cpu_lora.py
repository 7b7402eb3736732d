"""LoRA on the CPU with a real small model: our packed engine against TRL, taking turns in one process.

    python benchmarks/cpu_lora.py MODEL_FOLDER [--steps 4 --turns 5 --threads 2]

Both sides are in memory and hand over to each other after every few steps, so what else the machine does
meets both. Batches of 4 short examples in the same order, LoRA r=16 on all linear modules, fp32.
"""

from __future__ import annotations

import argparse
import random
import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from workload import make_importable, table

EXAMPLES_PER_STEP = 4


class Turns:
    """Two trainings that run one at a time. Each turn's seconds and tokens are noted per side."""

    def __init__(self, sides: list[str], steps: int, turns: int) -> None:
        self.sides = sides
        self.steps = steps
        self.turns = turns
        self.rates: dict[str, list[float]] = {side: [] for side in sides}
        self._condition = threading.Condition()
        self._active = 0
        self._done = {side: 0 for side in sides}
        self._tokens = 0
        self._since = 0.0

    def wait_for_turn(self, side: str) -> None:
        with self._condition:
            self._condition.wait_for(lambda: self.sides[self._active] == side)
            self._tokens, self._since = 0, time.perf_counter()

    def after_step(self, side: str) -> Callable[[int], bool]:
        """To be called after each step of `side`; True when it has had all its turns."""

        def call(tokens: int) -> bool:
            self._done[side] += 1
            self._tokens += tokens
            if self._done[side] % self.steps:
                return False
            self.rates[side].append(self._tokens / (time.perf_counter() - self._since))
            over = len(self.rates[side]) > self.turns
            with self._condition:
                self._active = (self._active + 1) % len(self.sides)
                self._condition.notify_all()
            if not over:
                self.wait_for_turn(side)
            return over

        return call


def short_examples(vocab: int, count: int = 400) -> list[Any]:
    """Like short questions and answers: 30 to 90 tokens, labels on the second half."""
    generator = random.Random(0)
    from backpropagate.training.data.tokens.example import Example

    made: list[Any] = []
    for _ in range(count):
        length = generator.randrange(30, 91)
        ids = generator.choices(range(100, vocab - 100), k=length)
        made.append(Example(ids, [-100] * (length // 2) + ids[length // 2 :]))
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--steps", type=int, default=4, help="steps a turn")
    parser.add_argument("--turns", type=int, default=5, help="timed turns of each side")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()

    import torch

    torch.set_num_threads(arguments.threads)
    make_importable()
    import our_side
    from transformers import AutoModelForCausalLM
    from trl_side import trainer

    from backpropagate.training.engine.packed.engine import load_packed_step

    plan = our_side.plan_of("cpu", "float32", batch_size=EXAMPLES_PER_STEP)
    decoder = load_packed_step(plan.changed(model=arguments.model)).decoder
    examples = short_examples(decoder.config.vocab_size)
    turns = Turns(["ours", "TRL"], arguments.steps, arguments.turns)
    who: list[str] = []

    def ours() -> None:
        turns.wait_for_turn("ours")
        our_side.train(decoder, plan, examples, turns.after_step("ours"))

    def trl() -> None:
        model: Any = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.float32)
        made, name = trainer(
            model,
            our_side.in_step_order(examples, plan),
            turns.after_step("TRL"),
            per_device_train_batch_size=EXAMPLES_PER_STEP,
            gradient_checkpointing=False,
            bf16=False,
            use_cpu=True,
        )
        who.append(name)
        turns.wait_for_turn("TRL")
        made.train()

    threads = [threading.Thread(target=side) for side in (ours, trl)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # The first turn of each side warms up.
    rates = {side: found[1:] for side, found in turns.rates.items()}
    median = {side: statistics.median(found) for side, found in rates.items()}
    rows = [["side", "useful tok/s", "turns"]]
    rows += [[side, f"{median[side]:.0f}", str([round(r) for r in found])] for side, found in rates.items()]
    print(f"TRL is {who[0]}\n\n{table(rows)}\n\nours / TRL = {median['ours'] / median['TRL']:.2f} (goal 1.2)")


if __name__ == "__main__":
    main()
