"""The kernels of GPUs beside the same in plain torch, on a CPU: `.ci/task kernels`.

With TRITON_INTERPRET=1 Triton runs them as Python, tile by tile, with every mask and stride as on a GPU; in
fp32, since it has no products in bf16 there. Prints a line for each check that fails.
"""

from __future__ import annotations

import contextlib
import sys
from itertools import product

import torch
from torch import Tensor

torch.cuda.device = lambda device: contextlib.nullcontext()  # pyright: ignore

from backpropagate.training.engine.packed.gated_activations import ACTIVATIONS  # noqa: E402
from backpropagate.training.engine.packed.gated_mlp_kernel import (  # noqa: E402
    GatedLora,
    Gradients,
    gated_backward,
    gated_forward,
)
from backpropagate.training.engine.packed.gather_kernel import gather_rows  # noqa: E402
from backpropagate.training.engine.packed.nf4 import Nf4Shape, Nf4Weight  # noqa: E402
from backpropagate.training.engine.packed.nf4_kernel import dequantise  # noqa: E402

FAILED: list[str] = []


def near(what: str, found: Tensor, exact: Tensor, limit: float = 1e-6) -> None:
    error = float((found - exact).norm() / exact.norm())
    if not error <= limit:
        FAILED.append(f"{what}: error {error:.1e}")


def rows_apart(rows: int, columns: int, apart: int) -> Tensor:
    """Random numbers whose rows lie so far apart; between them there are none."""
    whole = torch.full((rows, columns + apart), torch.nan)
    whole[:, :columns] = torch.randn(rows, columns)
    return whole[:, :columns]


def gated_mlp(tokens: int, width: int, rank: int, *, fused: bool, gelu: bool, adds: bool, apart: int) -> None:
    """An MLP whose gate and up are one module or two, with the LoRA added before or by the kernel."""
    what = (
        f"gated MLP {tokens} x {width}, rank {rank}, fused {fused}, gelu {gelu}, adds {adds}, apart {apart}"
    )
    up, columns = (0, rank) if fused else (rank, 2 * rank)
    columns = -(-columns // 8) * 8
    gate_up, d_activation = rows_apart(tokens, 2 * width, apart), rows_apart(tokens, width, apart)
    hidden, d_hidden = torch.randn(tokens, columns), torch.randn(tokens, -(-rank // 8) * 8)
    a, b = torch.zeros(d_hidden.shape[1], width), torch.zeros(2 * width, columns)
    a[:rank].normal_(0, 0.1)
    b[:width, :rank].normal_(0, 0.1)
    b[width:, up : up + rank].normal_(0, 0.1)
    activation = ACTIVATIONS["gelu_pytorch_tanh" if gelu else "silu"]
    whole, d_whole = gate_up, d_activation
    if adds:
        whole, d_whole = gate_up + hidden @ b.t(), d_activation + d_hidden @ a
    again, exact = activation.backward(d_whole, whole)
    lora, shapes = GatedLora(rank, up, 2.0, gelu), ((rank, width), (width, rank), (width, rank))
    into = Gradients(*(torch.full(shape, torch.nan) for shape in shapes))
    added = (b, a) if adds else None
    near(what, gated_backward(d_activation, gate_up, d_hidden, hidden, lora, into, added), exact)
    near(f"{what}: A of down", into.a_of_down, d_hidden[:, :rank].t() @ again)
    near(f"{what}: B of gate", into.b_of_gate, 2 * exact[:, :width].t() @ hidden[:, :rank])
    near(f"{what}: B of up", into.b_of_up, 2 * exact[:, width:].t() @ hidden[:, up : up + rank])
    if adds:
        near(f"{what}: forward", gated_forward(gate_up, hidden, b, lora), activation.forward(whole))


def nf4(nested: bool) -> None:
    shape = Nf4Shape(96, 160, 64, nested)
    weight = Nf4Weight(
        shape, {name: torch.empty(n, dtype=dtype) for name, (dtype, n) in shape.parts().items()}
    )
    weight.take(torch.randn(96, 160))
    out = torch.full((96, 176), torch.nan)[:, :160]
    dequantise(weight, out)
    near(f"NF4, nested {nested}", out, weight.dequantised().float(), 0.0)


def main() -> None:
    torch.manual_seed(0)
    for (tokens, width, rank), fused, gelu, adds in product(
        [(70, 176, 8), (257, 130, 4), (1, 64, 16)], *[(False, True)] * 3
    ):
        gated_mlp(tokens, width, rank, fused=fused, gelu=gelu, adds=adds, apart=16 if adds else 48)
    gated_mlp(300, 256, 64, fused=False, gelu=False, adds=False, apart=0)
    matrix, rows = torch.randn(50, 1300).bfloat16(), torch.tensor([3, 1, 49, 3])
    near("gathered rows", gather_rows(matrix, rows).float(), matrix[rows].float(), 0.0)
    for nested in (False, True):
        nf4(nested)
    print("\n".join(FAILED) or "all as in plain torch")
    sys.exit(bool(FAILED))


if __name__ == "__main__":
    main()
