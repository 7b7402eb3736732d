"""The parts of a base in FP8 on a GPU: exact as the reference in plain torch, and how fast.

    python benchmarks/gpu_fp8.py                 a minute on a GPU with FP8
    python benchmarks/gpu_fp8.py --device cpu    the reference against itself

Widths are those of a 7B's linears, 4,096 tokens. Numbers that are rounded otherwise come from a division on
the border between two; products are compared with those of the same FP8 numbers in fp32, the MLP with the
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

from backpropagate.training.engine.lora_parameters import LoraModule, LoraParameters  # noqa: E402
from backpropagate.training.engine.packed.fp8 import Fp8Matrix, product, quantised  # noqa: E402
from backpropagate.training.engine.packed.fp8_linear import Fp8LoraLinear  # noqa: E402
from backpropagate.training.engine.packed.fused_mlp import dense_mlp  # noqa: E402
from backpropagate.training.engine.packed.fused_ops import swiglu_backward  # noqa: E402
from backpropagate.training.engine.packed.lora_linear import Refresh  # noqa: E402

TOKENS = 4096
SHAPES = {"qkv": (3584, 4608), "o_proj": (3584, 3584), "gate_up": (3584, 37888), "down_proj": (18944, 3584)}
"""Inputs and outputs."""
LIMITS = {"rounded otherwise": 1e-3, "product": 0.005, "MLP": 0.005}


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


def check_mlp(tokens: int, hidden: int, width: int, device: str) -> tuple[list[list[str]], float]:
    """The MLP's own kernels, with the LoRA inside: forward, and backward with the LoRA's gradients."""
    settings: dict[str, Any] = dict(
        rank=16, scale=2.0, bias=False, dtype=torch.bfloat16, device=torch.device(device)
    )
    gate, up = LoraModule("gate_proj", hidden, width), LoraModule("up_proj", hidden, width)
    gate_up = Fp8LoraLinear([gate, up], targeted=[True, True], **settings)
    down = Fp8LoraLinear([LoraModule("down_proj", width, hidden)], targeted=[True], **settings)
    mlp: Any = dense_mlp(gate_up, down, "silu", 0.0)
    lora = LoraParameters([gate_up.group, down.group], 16, torch.device(device))
    gradients = torch.zeros_like(lora.gradients, dtype=torch.bfloat16)
    torch.manual_seed(1)
    lora.values.normal_(0, 0.1)
    for linear in (gate_up, down):
        linear.bind(lora, gradients)
    Refresh([gate_up, down])()
    a, b = down.a, gate_up.b

    def random(columns: int) -> Tensor:  # rows that lie apart, as parts of a wider product do
        return torch.randn(tokens, columns + 16, device=device).bfloat16()[:, :columns]

    both, lora_hidden, d, d_lora = random(2 * width), random(b.shape[1]), random(width), random(a.shape[0])
    whole = both.float() + lora_hidden.float() @ b.float().t()
    activation, d_both = swiglu_backward(d.float() + d_lora.float() @ a.float(), whole)
    d_b = 2.0 * d_both.t() @ lora_hidden.float()
    exact = activation, d_both, d_lora.float().t() @ activation, d_b[:width, :16], d_b[width:, 16:]

    def backward() -> Tensor:
        return mlp._activate_backward(d, d_lora, both, lora_hidden, (None, None))

    found = mlp._activate(both, lora_hidden), backward(), down.a_gradient, *gate_up.b_gradients
    errors = [relative(one, other) for one, other in zip(found, exact, strict=True)]
    forward_s = seconds(lambda: mlp._activate(both, lora_hidden), device)
    backward_s = seconds(backward, device)
    rows = [["MLP with LoRA", "activation", "d gate, up", "dA", "dB", "forward GB/s", "backward GB/s"]]
    moved = 2 * tokens * width / 1e9
    shown = [f"{error:.5f}" for error in (*errors[:3], max(errors[3:]))]
    rows.append([f"width {width}", *shown, f"{3 * moved / forward_s:.0f}", f"{5 * moved / backward_s:.0f}"])
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
    activations, worst["MLP"] = check_mlp(*sizes, arguments.device)
    print(f"{table(products)}\n\n{table(activations)}\n")
    wrong = [name for name, error in worst.items() if not error <= LIMITS[name]]
    print("all as the reference" if not wrong else f"NOT as the reference: {', '.join(wrong)}")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
