"""Whether what is compiled while weights are read is all that the first steps of a training need.

    python benchmarks/gpu_warm_up.py [0.5b tiny-moe …]     a minute on an H100

A model of each shape with random weights is loaded as a training loads it. Then evaluations and steps of
different sizes are taken, and what is compiled during them is counted, graphs of torch's compiler and kernels
of our own: there must be none.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from workload import examples, make_importable, table, write_random_model

make_importable()

from our_side import plan_of  # noqa: E402

from backpropagate.training.engine.loop.batch import packed_batch  # noqa: E402
from backpropagate.training.engine.packed.engine import load_packed_step  # noqa: E402

BATCHES = ((0, 8), (8, 9), (9, 25), (25, 28))


def compiled() -> tuple[int, int]:
    """Graphs, and kernels."""
    from torch._dynamo.utils import counters

    return counters["stats"]["unique_graphs"], len(KERNELS)


KERNELS: list[str] = []


def count_kernels() -> None:
    import triton

    def after_compiling(*, fn: Any, **_: Any) -> None:
        KERNELS.append(fn.name)

    triton.knobs.runtime.jit_post_compile_hook = after_compiling


def row_of(size: str, folder: Path) -> list[str]:
    model = write_random_model(folder, size)
    torch._dynamo.reset()
    before, start = compiled(), time.perf_counter()
    step = load_packed_step(plan_of("cuda", "bfloat16", batch_size=8, model=model))
    loading_s, loaded = time.perf_counter() - start, compiled()
    data = examples(size, count=30)
    seconds: list[float] = []
    for first, last in BATCHES:
        start = time.perf_counter()
        batch = packed_batch(data[first:last], multiple=step.row_multiple).to(step.device)
        step.label_losses(batch)
        step.forward_backward(batch, torch.full((), 1e-3, device=step.device), seed=0)
        step.refresh()
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    graphs, kernels = ([each[i] for each in (before, loaded, compiled())] for i in range(2))
    print(f"{size}: kernels compiled after loading: {KERNELS[kernels[1] :]}")
    counts = [f"{first}, {then}" for first, then in ((b - a, c - b) for a, b, c in (graphs, kernels))]
    return [size, f"{loading_s:.1f}", *counts, " ".join(f"{each:.2f}" for each in seconds)]


def main() -> None:
    count_kernels()
    rows = [["shape", "loading s", "graphs, after", "kernels, after", "seconds of evaluations with a step"]]
    for size in sys.argv[1:] or ["0.5b", "tiny-moe"]:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(row_of(size, Path(folder) / "model"))
    print(table(rows))
    nothing_later = all(row[2].endswith(", 0") and row[3].endswith(", 0") for row in rows[1:])
    counted = not any(row[3].startswith("0,") for row in rows[1:])  # else the count itself is broken
    sys.exit(0 if nothing_later and counted else 1)


if __name__ == "__main__":
    main()
