"""How exact bf16 LoRA gradients are on a GPU: ours and PEFT's, against PEFT in fp32.

    python benchmarks/gpu_gradients.py               0.5B, 1.5B and 7B shapes, about 5 minutes on an H200
    python benchmarks/gpu_gradients.py --quick       the 0.5B shape only
    python benchmarks/gpu_gradients.py --layers 2 --sizes 30b-a3b gpt-oss-20b glm-4.5-air mixtral-8x7b
    python benchmarks/gpu_gradients.py --layers 6 --sizes gemma4-e4b gemma4-e2b gemma4-31b

Qwen2.5 shapes, or those of models with experts, with the same random weights for everyone; five examples of
123 to 1500 tokens, which ours takes packed and PEFT one by one. The error is that of all LoRA gradients
together, sqrt(sum (g - g32)^2 / sum g32^2), and the worst one of a single matrix. Goal: at most 1.1 times
PEFT's own. With experts, rounding sends some tokens to other experts than fp32 does, on both sides. Of a base
in FP8 the error is shown, with the cosine of its gradient and the exact one; it has no goal here, since only
a training tells what it costs (`loss_curve.py`).
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from typing import Any

import torch
from gradient_sides import GOAL, LORA, our_gradients, peft_gradients, random_examples, random_model, with_peft
from torch import Tensor
from workload import make_importable, shape_config, table

make_importable()

from backpropagate.training.engine.loop.batch import packed_batch  # noqa: E402
from backpropagate.training.engine.packed.attention import (  # noqa: E402
    DifferentiatedAttention,
    RecomputedAttention,
    attention_for,
    explicit,
    segmentwise,
)
from backpropagate.training.engine.packed.decoder import PackedDecoder  # noqa: E402
from backpropagate.training.engine.packed.decoder_config import read_decoder_config  # noqa: E402
from backpropagate.training.engine.packed.expert_products import LoopedProducts, products_for  # noqa: E402
from backpropagate.training.engine.packed.fp8_linear import Fp8LoraLinear, fp8_linears  # noqa: E402
from backpropagate.training.engine.packed.load_weights import destinations, spread_qk_norms  # noqa: E402
from backpropagate.training.engine.packed.lora_linear import FusedLoraLinear, MakeLinear  # noqa: E402

MODES = ("nothing", "gate_up", "everything")


def our_decoder(model: Any, device: str, linear: MakeLinear = FusedLoraLinear) -> PackedDecoder:
    """Ours with the same weights, and LoRA values that all sides use."""
    config = read_decoder_config(model.config)
    decoder = PackedDecoder(config, LORA, torch.bfloat16, torch.device(device), linear)
    state = model.state_dict()
    for each in fp8_linears(decoder.layers):
        each.weight.take(torch.cat([state[f"{module.name}.weight"] for module in each.modules]))
    for name, place in destinations(decoder).items():
        place.copy_(state[name])
    spread_qk_norms(decoder)
    torch.manual_seed(2)
    decoder.lora.values.normal_(0, 0.02)
    decoder.refresh()
    return decoder


def check(size: str, device: str, layers: int | None) -> list[list[str]]:
    """The rows of one size."""
    config = shape_config(size, layers)
    model = random_model(config, device)
    examples = random_examples(config.vocab_size)
    decoder = our_decoder(model, device)
    found = list(our_gradients(decoder, examples))
    if decoder.config.experts is None:
        in_fp8 = our_decoder(model, device, Fp8LoraLinear)
        found += [(f"fp8 base, {mode}", *rest) for mode, *rest in our_gradients(in_fp8, examples)]
        del in_fp8
    adapted = with_peft(model, decoder)
    for name, autocast in (("PEFT bf16", False), ("PEFT bf16, autocast", True)):
        found.append((name, *peft_gradients(adapted, decoder, examples, autocast)))
    reference_loss, reference = peft_gradients(adapted.float(), decoder, examples, False)
    errors = {name: float((g - reference).norm() / reference.norm()) for name, _, g in found}
    peft = errors["PEFT bf16"]
    rows: list[list[str]] = []
    exact = decoder.lora.matrices(reference)
    for name, loss, gradient in found:
        parts = decoder.lora.matrices(gradient)
        worst = max(float((parts[part] - exact[part]).norm() / exact[part].norm()) for part in exact)
        ours = name in MODES
        verdict = ("good" if errors[name] <= GOAL * peft else "TOO LARGE") if ours else ""
        if name.startswith("fp8"):
            verdict = f"cosine {float(torch.cosine_similarity(gradient, reference, 0)):.4f}"
        rows.append(
            [
                f"{size}, {config.num_hidden_layers} layers", f"ours, recompute {name}" if ours else name,
                f"{loss:.5f}", f"{reference_loss:.5f}", f"{errors[name]:.5f}", f"{worst:.4f}",
                f"{errors[name] / peft:.3f} {verdict}",
            ]
        )  # fmt: skip
    return rows


def check_attention(device: str) -> str:
    """The GPU's attention in bf16 against one segment after the other in fp32: output and gradients."""
    rows = [["attention", "heads", "head_dim", "window", "out", "dq", "dk", "dv"]]
    batch = packed_batch(random_examples(20_000), multiple=64).to(torch.device(device))
    tokens = len(batch.input_ids)
    for heads, groups, head_dim in ((14, 2, 64), (28, 4, 128), (8, 8, 96), (8, 2, 512)):
        attention = attention_for(torch.device(device), torch.bfloat16, head_dim)
        for window in (None, 200):
            torch.manual_seed(3)
            qkv = torch.randn(tokens, heads + 2 * groups, head_dim, device=device).bfloat16()
            d_out = torch.randn(tokens, heads, head_dim, device=device).bfloat16()
            results: list[tuple[Tensor, ...]] = []
            for which, dtype in (
                (attention, torch.bfloat16),
                (DifferentiatedAttention(segmentwise), torch.float32),
            ):
                q, k, v = torch.split(qkv.to(dtype), [heads, groups, groups], 1)
                out, saved = which.forward(q, k, v, batch.segments, window)
                results.append((out, *which.backward(d_out.to(dtype), saved)))
            name = type(attention).__name__
            rows.append([name, f"{heads}/{groups}", str(head_dim), str(window), *errors_of(*results)])
    return table(rows)


def check_sinks(device: str) -> str:
    """The same with a sink for each head, against attention that is written out."""
    rows = [["attention with sinks", "window", "out", "dq", "dk", "dv"]]
    batch = packed_batch(random_examples(20_000), multiple=64).to(torch.device(device))
    torch.manual_seed(4)
    heads, groups = (64, 8) if device == "cuda" else (4, 2)
    qkv = torch.randn(len(batch.input_ids), heads + 2 * groups, 64, device=device).bfloat16()
    d_out = torch.randn(len(batch.input_ids), heads, 64, device=device).bfloat16()
    sinks = torch.randn(heads, device=device).bfloat16()
    attention = attention_for(torch.device(device), torch.bfloat16, 64, sinks=True)
    for window in (None, 128):
        results: list[tuple[Tensor, ...]] = []
        for which, dtype in (
            (attention, torch.bfloat16),
            (RecomputedAttention(partial(explicit, scale=None)), torch.float32),
        ):
            q, k, v = torch.split(qkv.to(dtype), [heads, groups, groups], 1)
            out, saved = which.forward(q, k, v, batch.segments, window, sinks.to(dtype))
            results.append((out, *which.backward(d_out.to(dtype), saved)))
        rows.append([type(attention).__name__, str(window), *errors_of(*results)])
    return table(rows)


def check_products(device: str) -> str:
    """The device's products of experts in bf16, some experts without rows, against a loop in fp32."""
    rows = [["products", "experts", "rows", "x·Wᵀ", "dy·W", "dyᵀ·x", "without rows"]]
    shapes = [(128, 1536, 2048), (32, 5760, 2880), (8, 28672, 4096), (128, 8, 2048)]
    for experts, outputs, inputs in shapes if device == "cuda" else [(8, 64, 32)]:
        torch.manual_seed(5)
        chosen = torch.randint(0, experts // 2, (4096,), device=device).mul(2).sort()[0]
        every = torch.arange(experts, device=device)
        ends = torch.searchsorted(chosen, every, right=True, out_int32=True)
        x, dy = (torch.randn(4096, width, device=device).bfloat16() for width in (inputs, outputs))
        weight = torch.randn(experts, outputs, inputs, device=device).bfloat16()
        made = products_for(torch.device(device), torch.bfloat16, inputs, outputs)
        results: list[tuple[Tensor, ...]] = []
        for products, dtype in ((made, torch.bfloat16), (LoopedProducts(), torch.float32)):
            a, d, w = x.to(dtype), dy.to(dtype), weight.to(dtype)
            back = products.rows(d, w.transpose(1, 2), ends)
            results.append((products.rows(a, w, ends), back, products.outer(d, a, ends)))
        empty = "zero" if not results[0][2][1::2].any() else "NOT ZERO"
        rows.append([type(made).__name__, str(experts), "4096", *errors_of(*results), empty])
    return table(rows)


def errors_of(found: tuple[Tensor, ...], exact: tuple[Tensor, ...]) -> list[str]:
    return [f"{float((a.float() - b).norm() / b.norm()):.4f}" for a, b in zip(found, exact, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the 0.5B shape only")
    parser.add_argument("--sizes", nargs="+", default=None, help="0.5b, 1.5b, 7b, tiny, 30b-a3b, …")
    parser.add_argument("--layers", type=int, help="only so many layers")
    parser.add_argument("--device", default="cuda")
    parser.add_argument(
        "--minutes", type=float, default=7.0, help="sizes that would begin later are left out"
    )
    arguments = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cuda.enable_cudnn_sdp(False)
    end = time.time() + 60 * arguments.minutes
    rows = [["shape", "side", "loss", "loss fp32", "error", "worst matrix", "error / PEFT bf16"]]
    for size in arguments.sizes or (["0.5b"] if arguments.quick else ["0.5b", "1.5b", "7b"]):
        if time.time() > end:
            rows.append([size, "left out, the time is over", *[""] * 5])
            continue
        started = time.time()
        try:
            rows += check(size, arguments.device, arguments.layers)
        except torch.OutOfMemoryError as error:
            rows.append([size, f"out of memory: {str(error)[:60]}", *[""] * 5])
        print(f"{size}: {time.time() - started:.0f} s", flush=True)
        if arguments.device == "cuda":
            torch.cuda.empty_cache()
    print("\n" + check_attention(arguments.device) + "\n\n" + table(rows))
    print("\n" + check_sinks(arguments.device) + "\n\n" + check_products(arguments.device))


if __name__ == "__main__":
    main()
