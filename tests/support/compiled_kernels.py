"""The kernels of GPUs compiled for real cards, on a CPU: `.ci/task kernels`.

A training compiles them together before its first step. Prints a line for each that does not fit into a
card's shared memory, and for each that would be compiled again when it is launched.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

torch.cuda.device = lambda device: contextlib.nullcontext()  # pyright: ignore

from backpropagate.training.engine.packed import (  # noqa: E402
    cross_entropy_kernel,
    extend_kernel,
    extended_rows,
    fp8_kernel,
    gated_mlp_kernel,
    gather_kernel,
    gpu_kernels,
    nf4_kernel,
    norm_kernels,
    refresh_kernel,
    rotation_kernels,
)
from backpropagate.training.engine.packed.nf4 import Nf4Shape, Nf4Weight  # noqa: E402

CARDS = {"A100": (80, 163), "RTX 4090": (89, 99), "H100": (90, 227), "RTX 5090": (120, 99)}
"""Compute capability, and KiB of shared memory that a program may have."""
TOKENS, HIDDEN, WIDTH, HEADS, KEYS, SIZE, RANK = 64, 3584, 18944, 28, 4, 128, 16
COMPILED: list[str] = []


class Card:
    """What Triton asks a driver before it compiles."""

    def __init__(self, capability: int) -> None:
        self.capability = capability

    def get_current_device(self) -> int:
        return self.capability  # each has a cache of its own

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.capability, 32)


def bf16(*shape: int) -> Tensor:
    return torch.zeros(shape, dtype=torch.bfloat16)


def launch_all(capability: int, room: int) -> None:
    """Of a 7B's widths."""
    x, weight, ids = bf16(TOKENS, HIDDEN), bf16(HIDDEN), torch.zeros(TOKENS, dtype=torch.int64)
    for shift, rounded in ((0.0, True), (1.0, False)):
        form: dict[str, Any] = {"shift": shift, "rounded": rounded}
        norm_kernels.rms_norm(x, weight, 1e-6, **form)
        for after in (None, weight):
            norm_kernels.add_rms_norm(x, x, weight, 1e-6, after, **form)
        norm_kernels.rms_norm_gradient(x, x, weight, None, 1e-6, **form)
        norm_kernels.rms_norm_backward(x, x, weight, x, 1e-6, **form)
    if 1024 * (room + 1) >= extended_rows.LEAST_SHARED:  # 1 KiB is the system's
        for columns in (3 * RANK, 2 * RANK):
            extend_kernel.extend(x, bf16(columns, HIDDEN + columns)[:, :HIDDEN].t())
        extend_kernel.extend(x, bf16(HIDDEN, WIDTH + RANK)[:, WIDTH:])
    angles = torch.zeros(TOKENS, SIZE // 2), torch.zeros(TOKENS, SIZE // 2)
    q, k = bf16(TOKENS, HEADS, SIZE), bf16(TOKENS, KEYS, SIZE)
    rotation_kernels.turn(bf16(TOKENS, HEADS + 2 * KEYS, SIZE), *angles, HEADS + KEYS)
    rotation_kernels.turn_back(q, k, k, *angles)
    gate_up, activation = bf16(TOKENS, 2 * WIDTH), bf16(TOKENS, WIDTH)
    gated_mlp_kernel.activated(gate_up, gelu=False)
    lora = gated_mlp_kernel.GatedLora(RANK, RANK, 2.0, False)
    into = gated_mlp_kernel.Gradients(bf16(RANK, WIDTH), bf16(WIDTH, RANK), bf16(WIDTH, RANK))
    hidden = bf16(TOKENS, RANK), bf16(TOKENS, 2 * RANK)
    added = bf16(2 * WIDTH, 2 * RANK), bf16(RANK, WIDTH)
    gated_mlp_kernel.gated_backward(activation, gate_up, *hidden, lora, into, None)
    logits = bf16(TOKENS, 1024)
    cross_entropy_kernel.losses(logits, ids, None)
    cross_entropy_kernel.loss_and_gradient(logits, ids, torch.ones(()), None)
    gather_kernel.gather_rows(x, ids)
    refresh_kernel.CopyTable([refresh_kernel.Copied(x, x.float(), 1.0)]).copy()
    shape = Nf4Shape(HIDDEN, HIDDEN, 64, nested=True)
    parts = {part: torch.zeros(n, dtype=dtype) for part, (dtype, n) in shape.parts().items()}
    nf4_kernel.dequantise(Nf4Weight(shape, parts), bf16(HIDDEN, HIDDEN + RANK)[:, :HIDDEN])
    if capability >= 89:  # cards for which a base can be in FP8
        fp8_kernel.quantise_rows(x)
        gated_mlp_kernel.gated_forward(gate_up, hidden[1], added[0], lora)
        gated_mlp_kernel.gated_backward(activation, gate_up, *hidden, lora, into, added)


def kernels() -> Iterator[tuple[str, Any]]:
    for module in (cross_entropy_kernel, extend_kernel, fp8_kernel, gated_mlp_kernel, gather_kernel,
                   nf4_kernel, norm_kernels, refresh_kernel, rotation_kernels):  # fmt: skip
        for name, found in vars(module).items():
            if isinstance(found, triton.JITFunction):
                yield f"{module.__name__.rpartition('.')[2]}.{name}", found


def main() -> None:
    triton.knobs.runtime.jit_post_compile_hook = lambda *, fn, **_: COMPILED.append(fn.name)
    failed: list[str] = []
    for name, (capability, room) in CARDS.items():
        driver.set_active(Card(capability))
        before, start = len(COMPILED), time.perf_counter()
        gpu_kernels.compile_together(partial(launch_all, capability, room))
        count, seconds = len(COMPILED) - before, time.perf_counter() - start
        print(f"{name}: {count} kernels in {seconds:.1f} s")
        for kernel, function in kernels():
            for compiled in function.device_caches[capability][0].values():
                if compiled.metadata.shared > room * 1024:
                    failed.append(f"{kernel} takes {compiled.metadata.shared >> 10} KiB on {name}: {room}")
        with gpu_kernels.only_compiling():
            launch_all(capability, room)
        failed += [f"{kernel} is compiled again for {name}" for kernel in COMPILED[before + count :]]
        failed += [f"nothing was compiled for {name}"] * (not count)
    print("\n".join(failed) or "all fit")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
