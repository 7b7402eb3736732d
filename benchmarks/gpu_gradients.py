"""How exact bf16 LoRA gradients are on a GPU: ours and PEFT's, against PEFT in fp32.

    python benchmarks/gpu_gradients.py               0.5B, 1.5B and 7B shapes, about 5 minutes on an H200
    python benchmarks/gpu_gradients.py --quick       the 0.5B shape only

Qwen2.5 shapes with the same random weights for everyone; five examples of 123 to 1500 tokens, which ours
takes packed and PEFT one by one. The error is that of all LoRA gradients together,
sqrt(sum (g - g32)^2 / sum g32^2), and the worst one of a single matrix. Goal: at most 1.1 times PEFT's own.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from workload import make_importable, qwen_config, table

make_importable()

from backpropagate.training.config.specs import LoraGroup  # noqa: E402
from backpropagate.training.engine.loop.batch import packed_batch  # noqa: E402
from backpropagate.training.engine.packed.attention import DifferentiatedAttention, attention_for, segmentwise  # noqa: E402
from backpropagate.training.engine.packed.decoder import PackedDecoder  # noqa: E402
from backpropagate.training.engine.packed.decoder_config import read_decoder_config  # noqa: E402
from backpropagate.training.engine.packed.load_weights import destinations  # noqa: E402
from backpropagate.training.engine.plan import Example  # noqa: E402

LORA = LoraGroup(r=16, alpha=16)
LENGTHS = (700, 350, 900, 123, 1500)
GOAL = 1.1


def random_model(config: Any, device: str) -> Any:
    """A bf16 model whose norms and biases are not trivial."""
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1:
            noise = torch.randn_like(parameter) * 0.1
            parameter.data = parameter.data + noise if "norm" in name else noise
    return model.eval()


def random_examples(vocab: int) -> list[Example]:
    generator = torch.Generator().manual_seed(1)
    made: list[Example] = []
    for length in LENGTHS:
        ids = torch.randint(300, vocab - 500, (length,), generator=generator).tolist()
        made.append(Example(ids, [-100] * (length // 2) + ids[length // 2 :]))
    return made


def our_decoder(model: Any, device: str) -> PackedDecoder:
    """Ours with the same weights, and LoRA values that all sides use."""
    decoder = PackedDecoder(read_decoder_config(model.config), LORA, torch.bfloat16, torch.device(device))
    state = model.state_dict()
    for name, place in destinations(decoder).items():
        place.copy_(state[name])
    torch.manual_seed(2)
    decoder.lora.values.normal_(0, 0.02)
    decoder.refresh()
    return decoder


def our_gradients(decoder: PackedDecoder, examples: list[Example]) -> Iterator[tuple[str, float, Tensor]]:
    """Mode, loss and flat gradients."""
    batch = packed_batch(examples, multiple=64).to(decoder.device)
    weight = torch.full((), 1 / batch.label_tokens, device=decoder.device)
    for mode in ("nothing", "gate_up", "everything"):
        decoder.lora.gradients.zero_()
        loss = decoder.forward_backward(batch, weight, seed=0, recompute=mode)
        yield mode, float(loss), decoder.lora.gradients.clone()


def peft_gradients(
    adapted: Any, decoder: PackedDecoder, examples: list[Example], autocast: bool
) -> tuple[float, Tensor]:
    """Loss and gradients in the layout of ours."""
    device = decoder.device
    labels = sum(label != -100 for example in examples for label in example.labels[1:])
    adapted.zero_grad()
    total = 0.0
    for example in examples:
        ids = torch.tensor([example.input_ids], device=device)
        with torch.autocast(device.type, torch.bfloat16) if autocast else nullcontext():
            logits = adapted(input_ids=ids, use_cache=False).logits[0, :-1].float()
        targets = torch.tensor(example.labels[1:], device=device)
        loss = F.cross_entropy(logits, targets, reduction="sum") / labels
        loss.backward()
        total += loss.item()
        del logits, loss
    flat = torch.empty_like(decoder.lora.gradients)
    for name, place in decoder.lora.matrices(flat).items():
        place.copy_(adapted.get_parameter(f"base_model.model.{name}.default.weight").grad)
    return total, flat


def with_peft(model: Any, decoder: PackedDecoder) -> Any:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=LORA.r, lora_alpha=LORA.alpha, target_modules="all-linear", task_type="CAUSAL_LM")
    adapted = get_peft_model(model, config).eval()
    for name, value in decoder.lora.matrices(decoder.lora.values).items():
        adapted.get_parameter(f"base_model.model.{name}.default.weight").data.copy_(value)
    return adapted


def check(size: str, device: str, layers: int | None) -> list[list[str]]:
    """The rows of one size."""
    config = qwen_config(size)
    if layers is not None:
        config.num_hidden_layers = layers
        config.layer_types = config.layer_types[:layers]
    model = random_model(config, device)
    examples = random_examples(config.vocab_size)
    decoder = our_decoder(model, device)
    found = list(our_gradients(decoder, examples))
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
        ours = name in ("nothing", "gate_up", "everything")
        verdict = ("good" if errors[name] <= GOAL * peft else "TOO LARGE") if ours else ""
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
    for heads, groups, head_dim in ((14, 2, 64), (28, 4, 128), (8, 8, 96)):
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
            errors = [
                f"{float((a.float() - b).norm() / b.norm()):.4f}" for a, b in zip(*results, strict=True)
            ]
            name = type(attention).__name__
            rows.append([name, f"{heads}/{groups}", str(head_dim), str(window), *errors])
    return table(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the 0.5B shape only")
    parser.add_argument("--sizes", nargs="+", default=None, help="0.5b, 1.5b, 7b or tiny")
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


if __name__ == "__main__":
    main()
