"""Whether what is compiled while weights are read is all that the first steps of a training need.

    python benchmarks/gpu_warm_up.py [0.5b tiny-moe …]     a minute on an H100

A model of each shape with random weights is loaded as a training loads it, with its weights on the GPU and
streamed. Then evaluations and steps of different sizes are taken, and the graphs counted that torch compiles
during them: there must be none. The streamed model's losses must be the other's: nothing of the warm-up may
be left in the slots.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import torch
from workload import examples, make_importable, table, write_random_model

make_importable()

from our_side import plan_of  # noqa: E402

from backpropagate.training.engine.loop.batch import packed_batch  # noqa: E402
from backpropagate.training.engine.packed.engine import load_packed_step  # noqa: E402

BATCHES = ((0, 8), (8, 9), (9, 25), (25, 28))


def compiled() -> int:
    from torch._dynamo.utils import counters

    return counters["stats"]["unique_graphs"]


def row_of(size: str, model: Path, resident_layers: int | None) -> tuple[list[str], torch.Tensor]:
    """The row of the table, and the losses of the first evaluation."""
    torch._dynamo.reset()
    before, start = compiled(), time.perf_counter()
    plan = plan_of("cuda", "bfloat16", batch_size=8, model=model).changed(resident_layers=resident_layers)
    step = load_packed_step(plan)
    loaded, loading_s = compiled() - before, time.perf_counter() - start
    data = examples(size, count=30)
    seconds: list[float] = []
    losses: list[torch.Tensor] = []
    for first, last in BATCHES:
        start = time.perf_counter()
        batch = packed_batch(data[first:last], multiple=step.row_multiple).to(step.device)
        losses.append(step.label_losses(batch).float().cpu())
        step.forward_backward(batch, torch.full((), 1e-3, device=step.device), seed=0)
        step.refresh()
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    later = compiled() - before - loaded
    place = "GPU" if resident_layers is None else "streamed"
    timed = " ".join(f"{each:.2f}" for each in seconds)
    return [size, place, f"{loading_s:.1f}", f"{loaded}", f"{later}", timed], losses[0]


def main() -> None:
    rows = [["shape", "weights", "loading s", "graphs", "graphs after", "seconds of evaluations with a step"]]
    apart: list[float] = []
    for size in sys.argv[1:] or ["0.5b", "tiny-moe"]:
        with tempfile.TemporaryDirectory() as folder:
            model = write_random_model(Path(folder) / "model", size)
            resident, streamed = (row_of(size, model, layers) for layers in (None, 0))
        rows += [resident[0], streamed[0]]
        apart.append(float((resident[1] - streamed[1]).abs().max() / resident[1].std()))
    print(table(rows))
    print(
        "streamed losses from those on the GPU, in standard deviations:", *(f"{each:.4f}" for each in apart)
    )
    sys.exit(0 if all(row[4] == "0" for row in rows[1:]) and max(apart) < 0.1 else 1)


if __name__ == "__main__":
    main()
