"""Running out of GPU memory, and resuming: what a disturbed run does to the losses of an undisturbed one.

    python benchmarks/gpu_recovery.py [--size 0.5b]      about a minute on an H200

The same run four times: undisturbed; again, to see what the GPU's own order of additions does; with the
process limited to about two thirds of the memory that its steps need; and cancelled half way and resumed.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import our_side
import torch
from workload import EXAMPLES_PER_STEP, examples, qwen_config, table

from backpropagate.training.engine.loop.checkpoints import Checkpoints
from backpropagate.training.engine.loop.fit import fit
from backpropagate.training.engine.packed.decoder import PackedDecoder
from backpropagate.training.engine.packed.engine import PackedStep
from backpropagate.training.engine.plan import Data, Outcome, Plan
from backpropagate.training.events import Event, Step

STEPS = 8


def losses_of(
    decoder: PackedDecoder, plan: Plan, data: Data, folder: Path, stop_after: int = STEPS + 1
) -> tuple[list[float], Outcome]:
    """The loss of each step of a run with a new LoRA."""
    decoder.lora.initialise(plan.training.seed)
    decoder.lora.gradients.zero_()
    losses: list[float] = []

    def report(event: Event) -> None:
        if isinstance(event, Step):
            losses.append(event.loss)

    should_stop: Callable[[], bool] = lambda: len(losses) >= stop_after  # noqa: E731
    return losses, fit(PackedStep(decoder, plan), plan, data, report, should_stop, Checkpoints(folder))


def limit_memory(needed: int, before: int) -> None:
    """Leave about two thirds of what the steps take beyond the weights."""
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction((before + 0.66 * (needed - before)) / total)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="0.5b")
    parser.add_argument("--device", default="cuda")
    arguments = parser.parse_args()
    cuda = arguments.device == "cuda"
    plan = our_side.plan_of(
        arguments.device, "bfloat16" if cuda else "float32", batch_size=EXAMPLES_PER_STEP, report_every_s=0.0
    )
    plan = plan.changed(steps=STEPS, learning_rate=1e-3, micro_batch_tokens=16384)
    decoder = our_side.random_decoder(qwen_config(arguments.size), plan)
    data = Data(examples(arguments.size, count=EXAMPLES_PER_STEP * STEPS))  # pyright: ignore[reportArgumentType]
    before = torch.cuda.memory_allocated() if cuda else 0
    whole, _ = losses_of(decoder, plan, data, plan.model / "a")
    needed = torch.cuda.max_memory_reserved() if cuda else 0
    again, _ = losses_of(decoder, plan, data, plan.model / "b")
    if cuda:
        limit_memory(needed, before)
    small, outcome = losses_of(decoder, plan, data, plan.model / "c")
    if cuda:
        torch.cuda.set_per_process_memory_fraction(1.0)
    first, _ = losses_of(decoder, plan, data, plan.model / "d", stop_after=STEPS // 2)
    rest, _ = losses_of(decoder, plan.changed(resume=True), data, plan.model / "d")

    def difference(losses: list[float]) -> str:
        return f"{max(abs(a - b) / abs(b) for a, b in zip(losses, whole, strict=True)):.1e}"

    rows = [["run", "largest difference of a loss, relative", "what happened"]]
    rows.append(["undisturbed", "", f"losses {whole[0]:.4f} to {whole[-1]:.4f}"])
    rows.append(["again", difference(again), ""])
    recoveries = "; ".join(f"step {r.step}: {r.micro_batch_tokens} tokens" for r in outcome.recoveries)
    rows.append(["less memory", difference(small), recoveries or "NO RECOVERY WAS NEEDED"])
    rows.append(["cancelled and resumed", difference(first + rest), f"after {len(first)} steps"])
    print(table(rows))


if __name__ == "__main__":
    main()
