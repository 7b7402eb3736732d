"""The kernels of GPUs beside the same in plain torch, on a CPU: `.ci/task kernels`.

With TRITON_INTERPRET=1 Triton runs them as Python, tile by tile, with every mask and stride as on a GPU; in
fp32, since it has no products in bf16 there. Prints a line for each check that fails.
"""

from __future__ import annotations

import contextlib
import sys
from itertools import product
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

torch.cuda.device = lambda device: contextlib.nullcontext()  # pyright: ignore

from backpropagate.training.engine.packed import (  # noqa: E402
    cross_entropy_kernel,
    fused_cross_entropy,
    norm_kernels,
    rotation_kernels,
)
from backpropagate.training.engine.packed.extend_kernel import extend  # noqa: E402
from backpropagate.training.engine.packed.gated_activations import ACTIVATIONS  # noqa: E402
from backpropagate.training.engine.packed.gated_mlp_kernel import (  # noqa: E402
    GatedLora,
    Gradients,
    activated,
    gated_backward,
    gated_forward,
)
from backpropagate.training.engine.packed.gather_kernel import gather_rows  # noqa: E402
from backpropagate.training.engine.packed.head_rotation import head_rotation  # noqa: E402
from backpropagate.training.engine.packed.nf4 import Nf4Shape, Nf4Weight  # noqa: E402
from backpropagate.training.engine.packed.nf4_kernel import dequantise  # noqa: E402
from backpropagate.training.engine.packed.norms import NORMS  # noqa: E402
from backpropagate.training.engine.packed.refresh_kernel import Copied, CopyTable  # noqa: E402
from backpropagate.training.models.attention_heads import Heads  # noqa: E402
from backpropagate.training.models.decoder_families import Family  # noqa: E402

FORMS: dict[str, dict[str, Any]] = {
    "rms": {"shift": 0.0, "rounded": True},
    "rms_fp32": {"shift": 0.0, "rounded": False},
    "rms_plus_one": {"shift": 1.0, "rounded": False},
}
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


def norms(name: str, rows: int, columns: int, apart: int) -> None:
    settings, plain = FORMS[name], NORMS[name]
    what = f"norm {name}, {rows} x {columns}, apart {apart}"
    hidden, update, residual, d = (rows_apart(rows, columns, apart) for _ in range(4))
    weight, eps = torch.randn(columns), 1e-5
    near(what, norm_kernels.rms_norm(hidden, weight, eps, **settings), plain.forward(hidden, weight, eps))
    for after in (None, torch.randn(columns)):
        found = norm_kernels.add_rms_norm(hidden, update, weight, eps, after, **settings)
        for one, exact in zip(found, plain.add(hidden, update, weight, eps, after), strict=True):
            near(f"{what}: of a sum, normed before {after is not None}", one, exact)
    for passed in (None, residual):
        found = norm_kernels.rms_norm_backward(d, hidden, weight, passed, eps, **settings)
        for one, exact in zip(found, plain.backward(d, hidden, weight, passed, eps), strict=True):
            near(f"{what}: backward", one, exact)
        alone = norm_kernels.rms_norm_gradient(d, hidden, weight, passed, eps, **settings)
        near(f"{what}: gradient alone", alone, plain.gradient(d, hidden, weight, passed, eps))


def rotation(tokens: int, size: int, turned: int, *, interleaved: bool, norm: Any) -> None:
    """Five query heads, three of keys and of values, of which `turned` dimensions have a position."""
    what = f"rotation of {turned} of {size}, {tokens} tokens, interleaved {interleaved}, norm {norm}"
    qkv = rows_apart(tokens, 11 * size, 7).view(tokens, 11, size)
    dq, dk, dv = (rows_apart(tokens, n * size, 5).view(tokens, n, size) for n in (5, 3, 3))
    angles = torch.randn(tokens, turned // 2)
    angles = angles.cos(), angles.sin()
    heads = Heads(5, 3, size)
    config: Any = SimpleNamespace(
        family=Family(qk_norm=norm and "head", norm=norm or "rms", interleaved=interleaved),
        rotations=(SimpleNamespace(inverse_frequencies=angles[0][0]),),
        layer_rotations=(0,),
        heads=(heads,),
        norm_eps=1e-5,
    )
    plain = head_rotation(config, heads)
    weight = None if norm is None else torch.randn(8, size)
    kernels, given = rotation_kernels, {"interleaved": interleaved}
    if weight is None:
        found = kernels.turn(qkv, *angles, 8, **given)
        back = kernels.turn_back(dq, dk, dv, *angles, **given)
    else:
        given |= FORMS[norm]
        found = kernels.norm_turn(qkv, *angles, weight, 1e-5, **given)
        back = kernels.norm_turn_back(dq, dk, dv, qkv, *angles, weight, 1e-5, **given)
    near(what, found, plain.forward(qkv, angles, weight))
    near(f"{what}: backward", back, plain.backward(dq, dk, dv, qkv, angles, weight))


def cross_entropy(rows: int, vocabulary: int, cap: float | None) -> None:
    what = f"cross-entropy, {rows} x {vocabulary}, cap {cap}"
    logits, targets = 5 * torch.randn(rows, vocabulary), torch.randint(vocabulary, (rows,))
    weight = torch.tensor(0.25)
    plain = fused_cross_entropy._loss_and_gradient(logits, targets, weight, cap)  # pyright: ignore
    for one, exact in zip(
        cross_entropy_kernel.loss_and_gradient(logits, targets, weight, cap), plain, strict=True
    ):
        near(what, one, exact, 3e-6)
    exact = fused_cross_entropy._losses(logits, targets, cap)  # pyright: ignore
    near(f"{what}: losses", cross_entropy_kernel.losses(logits, targets, cap), exact)


def copies() -> None:
    shapes = [(3, 700), (70, 16), (1, 1)]
    values = [torch.randn(shape) for shape in shapes]
    places = [rows_apart(*shape, 8) for shape in shapes]
    table = CopyTable([Copied(*each, 0.5) for each in zip(places, values, strict=True)])
    table.copy()
    for place, exact in zip(places, values, strict=True):
        near(f"copied {tuple(exact.shape)}", place, 0.5 * exact, 0.0)


def extensions(tokens: int, width: int, columns: int) -> None:
    """By a matrix that lies row by row, as a B does, and by one that lies column by column, as an A."""
    x = rows_apart(tokens, width, 6)
    for matrix in (rows_apart(width, columns, 8), rows_apart(columns, width, 8).t()):
        extended, product = extend(x, matrix)
        near(f"{tokens} x {width} extended by {columns}", product, x @ matrix, 1e-5)
        near("extended rows", extended, torch.cat([x, product], 1), 0.0)


def main() -> None:
    torch.manual_seed(0)
    copies()
    for tokens, width, columns in ((70, 130, 16), (33, 300, 48), (1, 200, 8)):
        extensions(tokens, width, columns)
    for (tokens, width, rank), fused, gelu, adds in product(
        [(70, 176, 8), (257, 130, 4), (1, 64, 16)], *[(False, True)] * 3
    ):
        gated_mlp(tokens, width, rank, fused=fused, gelu=gelu, adds=adds, apart=16 if adds else 48)
    gated_mlp(300, 256, 64, fused=False, gelu=False, adds=False, apart=0)
    matrix, rows = torch.randn(50, 1300).bfloat16(), torch.tensor([3, 1, 49, 3])
    near("gathered rows", gather_rows(matrix, rows).float(), matrix[rows].float(), 0.0)
    for nested in (False, True):
        nf4(nested)
    for name, (rows, columns, apart) in product(FORMS, [(3, 130, 14), (5, 64, 0)]):
        norms(name, rows, columns, apart)
    for (size, turned), interleaved, norm in product([(24, 24), (16, 8)], (False, True), (None, *FORMS)):
        if norm != "rms" or (turned == size and not interleaved):
            rotation(131, size, turned, interleaved=interleaved, norm=norm)
    for gelu in (False, True):
        gate_up = rows_apart(6, 2 * 1030, 20)
        plain = ACTIVATIONS["gelu_pytorch_tanh" if gelu else "silu"]
        near(f"activation alone, gelu {gelu}", activated(gate_up, gelu=gelu), plain.forward(gate_up))
    for vocabulary, cap in product((64, 5000), (None, 30.0)):
        cross_entropy(5, vocabulary, cap)
    print("\n".join(FAILED) or "all as in plain torch")
    sys.exit(bool(FAILED))


if __name__ == "__main__":
    main()
