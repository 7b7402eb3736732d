"""How fast tensors go between the GPUs of this host, by what a training on several of them sends.

    python benchmarks/between_gpus.py 2                  on two GPUs, by NCCL
    python benchmarks/between_gpus.py 2 --all-seen       where each process sees the GPUs of the others too
    python benchmarks/between_gpus.py 2 --device cpu     the program itself, by gloo

    broadcast   the LoRA's values of a 7B, to all, before each step
    reduce      their gradients, to the first, after it
    gather      a layer in 16 bits of which each has a part, twice a micro-batch with sharded weights

As in a training, each process sees its own GPU only. GB/s are bytes of the whole tensor by the time until
all have it. Over NVLink they are hundreds; some tens mean that the GPUs reach each other through main
memory, and explain a training that gains little.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from workload import table

dist: Any = torch.distributed  # untyped in part

LORA, LAYER = 4 * 40_370_176, 2 * 233_057_792
"""Bytes: LoRA r=16 on all linear modules, and a layer, of Qwen2.5-7B."""
REPEATS = 10


def measured(rank: int, size: int, store: str, device: str, all_seen: bool) -> list[list[str]]:
    """Of this rank; all ranks call it together."""
    where = torch.device(device, rank if all_seen else 0) if device == "cuda" else torch.device(device)
    if device == "cuda":
        torch.cuda.set_device(where)
    backend = "nccl" if device == "cuda" else "gloo"
    dist.init_process_group(backend, store=dist.FileStore(store, size), rank=rank, world_size=size)
    share = 1 if device == "cuda" else 50
    lora = torch.ones(LORA // 4 // share, device=where)
    part = torch.ones(LAYER // size // share, dtype=torch.uint8, device=where)
    whole: Any = [torch.empty_like(part) for _ in range(size)]
    rows = [
        ("broadcast", lora.nbytes, lambda: dist.broadcast(lora, 0)),
        ("reduce", lora.nbytes, lambda: dist.reduce(lora, 0)),
        ("gather", part.nbytes * size, lambda: dist.all_gather(whole, part)),
    ]
    found = [[name, f"{size}", *_speed(bytes_, send, where)] for name, bytes_, send in rows]
    dist.destroy_process_group()
    return found


def _speed(size: int, send: Callable[[], Any], where: torch.device) -> list[str]:
    def all_have_it() -> None:
        if where.type == "cuda":
            torch.cuda.synchronize(where)
        dist.barrier()

    send()
    all_have_it()
    start = time.perf_counter()
    for _ in range(REPEATS):
        send()
    all_have_it()
    seconds = (time.perf_counter() - start) / REPEATS
    return [f"{size / 1e6:.0f}", f"{seconds * 1e3:.2f}", f"{size / seconds / 1e9:.1f}"]


def _environment(rank: int, asked: argparse.Namespace) -> dict[str, str]:
    only = {} if asked.all_seen or asked.device == "cpu" else {"CUDA_VISIBLE_DEVICES": str(rank)}
    return {**os.environ, **only}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("gpus", type=int)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--all-seen", action="store_true")
    parser.add_argument("--rank", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--store", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.rank is not None:
        rows = measured(asked.rank, asked.gpus, asked.store, asked.device, asked.all_seen)
        if asked.rank == 0:
            print(table([["what", "GPUs", "MB", "ms", "GB/s"], *rows]))
        return
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, str(asked.gpus), "--device", asked.device]
        command += ["--all-seen"] * asked.all_seen + ["--store", str(Path(folder) / "store"), "--rank"]
        ranks = [
            subprocess.Popen([*command, str(rank)], env=_environment(rank, asked))
            for rank in range(asked.gpus)
        ]
        sys.exit(max(rank.wait() for rank in ranks))


if __name__ == "__main__":
    main()
