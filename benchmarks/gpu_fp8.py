"""The parts of a base in FP8 on a GPU: exact as the reference in plain torch, and how fast.

    python benchmarks/gpu_fp8.py                 a minute on a GPU with FP8
    python benchmarks/gpu_fp8.py --device cpu    the reference against itself

Widths are those of a 7B's linears, 4,096 tokens. Numbers that are rounded otherwise come from a division on
the border between two; products are compared with those of the same FP8 numbers in fp32, SwiGLU with the
same in fp32. Bandwidth counts each tensor once, however often it is read.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from workload import make_importable, table

make_importable()

from backpropagate.training.engine.lora_parameters import LoraModule  # noqa: E402
from backpropagate.training.engine.packed.fp8 import Fp8Matrix, product, quantised  # noqa: E402
from backpropagate.training.engine.packed.fp8_linear import Fp8LoraLinear  # noqa: E402
from backpropagate.training.engine.packed.fp8_mlp import dense_mlp  # noqa: E402
from backpropagate.training.engine.packed.fused_ops import swiglu, swiglu_backward  # noqa: E402

TOKENS = 4096
SHAPES = {"qkv": (3584, 4608), "o_proj": (3584, 3584), "gate_up": (3584, 37888), "down_proj": (18944, 3584)}
"""Inputs and outputs."""
LIMITS = {"rounded otherwise": 1e-3, "product": 0.005, "swiglu": 0.005}


def seconds(run: Callable[[], Any], device: str, repeats: int = 20) -> float:
    """Of one run; the device works on nothing else."""
    if device == "cpu":
        started = time.perf_counter()
        run()
        return time.perf_counter() - started
    for _ in range(3):
        run()
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    for _ in range(repeats):
        run()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / 1e3 / repeats


def relative(found: Tensor, exact: Tensor) -> float:
    return float((found.float() - exact).norm() / exact.norm())


def in_plain_torch(x: Tensor) -> Fp8Matrix:
    return quantised(x.cpu())


def check_products(tokens: int, device: str) -> tuple[list[list[str]], dict[str, float]]:
    """Each shape in both directions, and the worst of what has a limit."""
    rows = [
        ["product", "rounded otherwise", "error", "TFLOP/s in FP8", "in bf16", "ratio", "quantising GB/s"]
    ]
    worst = {"rounded otherwise": 0.0, "product": 0.0}
    for name, (inputs, outputs) in SHAPES.items():
        for way, k, n in (("y = x·Wᵀ", inputs, outputs), ("dx = dy·W", outputs, inputs)):
            torch.manual_seed(0)
            x = torch.randn(tokens, k, device=device).mul(
                torch.logspace(-3, 3, tokens, device=device)[:, None]
            )
            x, w = x.bfloat16(), torch.randn(n, k, device=device).mul(0.02).bfloat16()
            weight, made = quantised(w), quantised(x)
            some = slice(0, 64)
            plain = in_plain_torch(x[some])
            other = (made.values[some].float().cpu() != plain.values.float()).float().mean()
            exact = made.rows(some).dequantised() @ weight.dequantised().t()
            error = relative(product(x, weight)[some], exact)
            worst["rounded otherwise"] = max(worst["rounded otherwise"], float(other))
            worst["product"] = max(worst["product"], error)
            flop = 2 * tokens * k * n
            quantising = seconds(lambda x=x: quantised(x), device)
            in_fp8 = seconds(lambda x=x, weight=weight: product(x, weight), device) - quantising
            in_bf16 = seconds(lambda x=x, w=w: x @ w.t(), device)
            speeds = [f"{flop / each / 1e12:.0f}" for each in (in_fp8, in_bf16)]
            speeds += [f"{in_bf16 / in_fp8:.2f}", f"{3 * tokens * k / quantising / 1e9:.0f}"]
            rows.append([f"{name}, {way}", f"{float(other):.1e}", f"{error:.5f}", *speeds])
            del x, w, weight, made, exact
    return rows, worst


def check_swiglu(tokens: int, hidden: int, width: int, device: str) -> tuple[list[list[str]], float]:
    """SwiGLU with its LoRA inside, forward and backward."""
    settings: dict[str, Any] = dict(
        rank=16, scale=2.0, bias=False, dtype=torch.bfloat16, device=torch.device(device)
    )
    gate, up = LoraModule("gate_proj", hidden, width), LoraModule("up_proj", hidden, width)
    gate_up = Fp8LoraLinear([gate, up], targeted=[True, True], **settings)
    down = Fp8LoraLinear([LoraModule("down_proj", width, hidden)], targeted=[True], **settings)
    torch.manual_seed(1)
    b, a = gate_up.b.normal_(0, 0.1), down.a.normal_(0, 0.1)
    mlp: Any = dense_mlp(gate_up, down, "silu", 0.0)

    def random(columns: int) -> Tensor:
        return torch.randn(tokens, columns, device=device).bfloat16()

    both, hidden_lora, d, d_lora = random(2 * width), random(b.shape[1]), random(width), random(a.shape[0])
    whole = both.float() + hidden_lora.float() @ b.float().t()
    exact = (swiglu(whole), *swiglu_backward(d.float() + d_lora.float() @ a.float(), whole))
    found = (mlp._activate(both, hidden_lora), *mlp._activate_backward(d, d_lora, both, hidden_lora))
    errors = [relative(one, other) for one, other in zip(found, exact, strict=True)]
    forward = seconds(lambda: mlp._activate(both, hidden_lora), device)
    backward = seconds(lambda: mlp._activate_backward(d, d_lora, both, hidden_lora), device)
    rows = [["SwiGLU with LoRA", "activation", "again", "d gate, up", "forward GB/s", "backward GB/s"]]
    moved = 2 * tokens * width / 1e9
    shown = [f"{error:.5f}" for error in errors]
    rows.append([f"width {width}", *shown, f"{3 * moved / forward:.0f}", f"{6 * moved / backward:.0f}"])
    return rows, max(errors)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    arguments = parser.parse_args()
    on_gpu = arguments.device == "cuda"
    if not on_gpu:
        SHAPES.update({name: (64, 128) for name in SHAPES})
    products, worst = check_products(TOKENS if on_gpu else 64, arguments.device)
    sizes = (TOKENS, 3584, 18944) if on_gpu else (70, 64, 176)
    activations, worst["swiglu"] = check_swiglu(*sizes, arguments.device)
    print(f"{table(products)}\n\n{table(activations)}\n")
    wrong = [name for name, error in worst.items() if not error <= LIMITS[name]]
    print("all as the reference" if not wrong else f"NOT as the reference: {', '.join(wrong)}")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
