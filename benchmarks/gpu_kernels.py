"""Kernels of the packed engine's element-wise parts: as the same in plain torch, and beside torch's compiler.

    python benchmarks/gpu_kernels.py [--tokens 4032] [--no-compiler]     a minute on a GPU

Widths are those of a 7B, in bf16. An error is that of all numbers against the same in fp32, beside that of
plain torch in bf16. "host µs" is what one call costs the host when it does not wait for the GPU.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from workload import make_importable, table

make_importable()

from backpropagate.training.engine.packed import fused_cross_entropy, fused_ops, gated_activations  # noqa: E402
from backpropagate.training.engine.packed.gpu_kernels import WITHOUT, has_triton  # noqa: E402
from backpropagate.training.engine.packed.norms import NORMS  # noqa: E402

HIDDEN, WIDTH, HEADS, KV_HEADS, HEAD, VOCABULARY = 3584, 18944, 28, 4, 128, 152064
LIMIT = 1.05
"""Of the error as a ratio to plain torch's."""


class Case(NamedTuple):
    name: str
    function: Any
    arguments: tuple[Any, ...]


def cases(tokens: int) -> list[Case]:
    def random(*shape: int) -> Tensor:
        return torch.randn(shape, device="cuda").bfloat16()

    hidden, update, d = (random(tokens, HIDDEN) for _ in range(3))
    wide = random(tokens, HIDDEN + 32)[:, :HIDDEN]  # as a part of a wider product
    weight = random(HIDDEN)
    qkv = random(tokens, HEADS + 2 * KV_HEADS, HEAD)
    d_qkv = random(tokens, HEADS, HEAD), random(tokens, KV_HEADS, HEAD), random(tokens, KV_HEADS, HEAD)
    angles = torch.randn(tokens, HEAD // 2, device="cuda")
    cos, sin = angles.cos(), angles.sin()
    of_norm = cos, sin, random(HEADS + KV_HEADS, HEAD), 1e-6
    cross_entropy = fused_cross_entropy._loss_and_gradient  # pyright: ignore
    logits, targets = random(880, VOCABULARY), torch.randint(VOCABULARY, (880,), device="cuda")
    gate_up = random(tokens, 2 * WIDTH)
    found = [
        Case("rotate", fused_ops.rotate, (qkv, cos, sin, HEADS + KV_HEADS)),
        Case("rotate backward", fused_ops.rotate_backward, (*d_qkv, cos, sin)),
        Case("norm, rotate", fused_ops.norm_rotate, (qkv, *of_norm)),
        Case("norm, rotate backward", fused_ops.norm_rotate_backward, (*d_qkv, qkv, *of_norm)),
        Case("SwiGLU", fused_ops.swiglu, (gate_up,)),
        Case("GeGLU", gated_activations.geglu, (gate_up,)),
        Case("cross-entropy", cross_entropy, (logits, targets, torch.ones((), device="cuda"), None)),
    ]
    for name in ("rms", "rms_plus_one"):
        norm = NORMS[name]
        found += [
            Case(name, norm.forward, (hidden, weight, 1e-6)),
            Case(f"{name} of a sum", norm.add, (hidden, update, weight, 1e-6)),
            Case(f"{name} of a sum with a norm", norm.add, (hidden, update, weight, 1e-6, weight)),
            Case(f"{name} backward", norm.backward, (wide, hidden, weight, d, 1e-6)),
        ]
    return found


def error(found: Any, exact: Any) -> float:
    pairs = list(zip(_flat(found), _flat(exact), strict=True))
    squares = sum(float((one.double() - other.double()).square().sum()) for one, other in pairs)
    return (squares / sum(float(other.double().square().sum()) for _, other in pairs)) ** 0.5


def _flat(found: Any) -> list[Tensor]:
    return list(found) if isinstance(found, tuple) else [found]


def in_fp32(argument: Any) -> Any:
    return argument.float() if isinstance(argument, Tensor) and argument.is_floating_point() else argument


def times(call: Callable[[], Any], repeats: int = 50) -> tuple[float, float]:
    """Milliseconds of the GPU, and microseconds of the host."""
    for _ in range(3):
        call()
    torch.cuda.synchronize()
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    for _ in range(repeats):
        call()
    end.record()
    torch.cuda.synchronize()
    few, start = 20, time.perf_counter()
    for _ in range(few):
        call()
    host = (time.perf_counter() - start) / few
    torch.cuda.synchronize()
    return begin.elapsed_time(end) / repeats, host * 1e6


def row_of(case: Case, compiler: bool) -> tuple[list[str], bool]:
    plain: Callable[..., Any] = case.function.__wrapped__
    exact = plain(*map(in_fp32, case.arguments))
    ours = error(case.function(*case.arguments), exact)
    theirs = error(plain(*case.arguments), exact)
    right = ours <= LIMIT * theirs + 1e-6
    ms, host = times(lambda: case.function(*case.arguments))
    row = [case.name, f"{ours:.5f}", f"{theirs:.5f}", f"{ms:.3f}", f"{host:.0f}"]
    if compiler:
        compiled: Any = torch.compile(plain)
        other_ms, other_host = times(lambda: compiled(*case.arguments))
        row += [f"{other_ms:.3f}", f"{other_host:.0f}", f"{other_ms / ms:.2f}"]
    return [*row, "" if right else "WRONG"], right


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--tokens", type=int, default=4032)
    parser.add_argument("--no-compiler", action="store_true", help="without torch's compiler beside it")
    asked = parser.parse_args()
    if not has_triton():
        sys.exit(WITHOUT)  # plain torch would be compared with itself
    torch.manual_seed(0)
    heads = ["kernel", "error", "plain torch's", "ms", "host µs"]
    if not asked.no_compiler:
        heads += ["compiled ms", "host µs", "ratio"]
    rows, right = [[*heads, ""]], True
    for case in cases(asked.tokens):
        row, good = row_of(case, not asked.no_compiler)
        rows.append(row)
        right &= good
    print(table(rows))
    print("all as in plain torch" if right else "NOT as in plain torch")
    sys.exit(not right)


if __name__ == "__main__":
    main()
