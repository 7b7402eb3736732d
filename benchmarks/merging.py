"""Time of a SLAO merge and of the next task's start for an adapter of a 7B model, beside reading its file.

python benchmarks/merging.py [rounds] [threads]
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file

from backpropagate import SLAOMerger

HIDDEN, INNER, KEYS, LAYERS, RANK = 3584, 18944, 512, 28, 16
SHAPES = {
    "q_proj": (HIDDEN, HIDDEN),
    "k_proj": (HIDDEN, KEYS),
    "v_proj": (HIDDEN, KEYS),
    "o_proj": (HIDDEN, HIDDEN),
    "gate_proj": (HIDDEN, INNER),
    "up_proj": (HIDDEN, INNER),
    "down_proj": (INNER, HIDDEN),
}


def adapter(seed: int) -> dict[str, torch.Tensor]:
    made = torch.Generator().manual_seed(seed)
    weights: dict[str, torch.Tensor] = {}
    for layer in range(LAYERS):
        for module, (wide, high) in SHAPES.items():
            name = f"base_model.model.model.layers.{layer}.{module}"
            weights[f"{name}.lora_A.weight"] = torch.randn(RANK, wide, generator=made)
            weights[f"{name}.lora_B.weight"] = torch.randn(high, RANK, generator=made)
    return weights


def seconds(action: Callable[[], object]) -> float:
    before = time.perf_counter()
    action()
    return time.perf_counter() - before


def main(rounds: int, threads: int) -> None:
    torch.set_num_threads(threads)
    first, second = adapter(1), adapter(2)
    times: dict[str, list[float]] = {"read": [], "merge": [], "start": []}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "adapter.safetensors"
        save_file(second, file)
        for _ in range(rounds + 1):
            merger = SLAOMerger()
            merger.initialize(first)
            times["read"].append(seconds(file.read_bytes))
            times["merge"].append(seconds(lambda merger=merger: merger.merge(second)))
            times["start"].append(seconds(merger.get_init_weights))
    count = sum(tensor.numel() for tensor in second.values())
    print(f"{count / 1e6:.1f} million parameters, {len(second) // 2} pairs, {threads} threads")
    median = {name: statistics.median(found[1:]) for name, found in times.items()}  # the first is a warm-up
    for name, found in median.items():
        print(f"{name:6} {found * 1000:7.1f} ms")
    ratio = statistics.median(
        merge / read for merge, read in zip(times["merge"][1:], times["read"][1:], strict=True)
    )
    print(f"merge / read: {ratio:.2f} (goal 2)")


if __name__ == "__main__":
    main(*(int(given) for given in (*sys.argv[1:], 9, 2)[:2]))
