"""A base in 4 bits on a GPU: its bits, its gradients, and the same bits when weights stream.

    python benchmarks/gpu_nf4.py [--sizes 0.5b 1.5b 7b] [--layers 4]

Qwen2.5 shapes with random weights. The bits are compared with bitsandbytes' own, what the kernel makes of
them with bitsandbytes and with the reference in plain torch. Gradients in bf16, ours and those of PEFT on
bitsandbytes' layers, are compared with PEFT in fp32 on the dequantised weights (goal: at most 1.1 times
PEFT's error). Streaming must equal resident weights bit for bit; where attention is not deterministic, two
equal runs show by how much.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from gradient_sides import GOAL, LORA, our_gradients, peft_gradients, random_examples, random_model, with_peft
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from workload import make_importable, qwen_config, table

make_importable()

from backpropagate.training.engine.loop.batch import packed_batch  # noqa: E402
from backpropagate.training.engine.packed.attention import DifferentiatedAttention, segmentwise  # noqa: E402
from backpropagate.training.engine.packed.decoder import PackedDecoder  # noqa: E402
from backpropagate.training.engine.packed.load_weights import nf4_weights  # noqa: E402
from backpropagate.training.engine.packed.open_decoder import load_decoder  # noqa: E402
from backpropagate.training.engine.packed.peft_view import base_view  # noqa: E402
from backpropagate.training.engine.packed.stored_weights import expand  # noqa: E402


def by_bitsandbytes(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    options = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )  # fmt: skip
    return AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.bfloat16, device_map={"": "cuda"}, quantization_config=options
    )


def our_decoder(folder: Path, resident: int | None = None, in_4bit: bool = True) -> PackedDecoder:
    decoder = load_decoder(folder, LORA, "bfloat16", "cuda", in_4bit=in_4bit, resident_layers=resident)
    torch.manual_seed(2)
    decoder.lora.values.normal_(0, 0.02)
    decoder.refresh()
    return decoder


def compare_bits(decoder: PackedDecoder, theirs: Any) -> list[list[str]]:
    """How many numbers differ, of all weights."""
    import bitsandbytes.functional as functional

    rows = [["compared with", "what", "numbers", "different"]]
    counts: dict[tuple[str, str], list[int]] = {}

    def count(side: str, what: str, ours: Tensor, other: Tensor) -> None:
        total = counts.setdefault((side, what), [0, 0])
        total[0] += ours.numel()
        total[1] += int((ours.flatten() != other.flatten()).sum())

    for name, weight in nf4_weights(decoder).items():
        linear = theirs.get_submodule(name)
        state = linear.weight.quant_state
        count("bitsandbytes", "packed", weight.parts[""], linear.weight.data.view(torch.uint8))
        count("bitsandbytes", "absmax", weight.parts["absmax"], state.absmax)
        count("bitsandbytes", "nested_absmax", weight.parts["nested_absmax"], state.state2.absmax)
        count("bitsandbytes", "offset", weight.parts["nested_offset"], state.offset)
        rows_, columns = weight.shape.rows, weight.shape.columns
        out = torch.full((rows_, columns + 16), float("nan"), dtype=torch.bfloat16, device="cuda")[
            :, :columns
        ]
        expand(weight, out)
        count("plain torch", "expanded", out, weight.dequantised().bfloat16())
        count("bitsandbytes", "expanded", out, functional.dequantize_4bit(linear.weight.data, state))
    return rows + [[*key, str(total), str(different)] for key, (total, different) in counts.items()]


def compare_gradients(folder: Path, model: Any, theirs: Any, decoder: PackedDecoder) -> list[list[str]]:
    examples = random_examples(decoder.config.vocab_size)
    found = list(our_gradients(decoder, examples))
    found.append(
        ("PEFT, bitsandbytes", *peft_gradients(with_peft(theirs, decoder), decoder, examples, False))
    )
    for name, weight in nf4_weights(decoder).items():
        model.get_submodule(name).weight.data = weight.dequantised()
    exact_loss, exact = peft_gradients(with_peft(model.float(), decoder), decoder, examples, False)
    errors = {name: float((g - exact).norm() / exact.norm()) for name, _, g in found}
    peft = errors["PEFT, bitsandbytes"]
    rows = [["gradients", "loss", "loss fp32", "error", "error / PEFT's"]]
    for name, loss, _ in found:
        verdict = "good" if errors[name] <= GOAL * peft else "TOO LARGE"
        ratio = f"{errors[name] / peft:.3f} {'' if 'PEFT' in name else verdict}"
        rows.append([name, f"{loss:.5f}", f"{exact_loss:.5f}", f"{errors[name]:.5f}", ratio])
    return rows


def measured(decoder: PackedDecoder) -> tuple[list[Tensor], list[Tensor]]:
    """Losses, and gradients, of passes of every kind, by turns."""
    batch = packed_batch(random_examples(decoder.config.vocab_size), multiple=64).to(decoder.device)
    weight = torch.full((), 1 / batch.label_tokens, device=decoder.device)
    losses: list[Tensor] = []
    gradients: list[Tensor] = []
    for mode in ("nothing", "everything", "gate_up", "everything"):
        decoder.lora.gradients.zero_()
        losses.append(decoder.label_losses(batch))
        losses.append(decoder.forward_backward(batch, weight, seed=0, recompute=mode))
        gradients.append(decoder.lora.gradients.clone())
    return losses, gradients


def answers(decoder: PackedDecoder, folder: Path) -> Tensor:
    ids = torch.arange(300, 320, device="cuda")[None]
    with torch.no_grad():
        return base_view(decoder, folder).eval().generate(ids, max_new_tokens=12, do_sample=False)


def compare_streaming(folder: Path) -> list[list[str]]:
    """Differences of losses and of gradients, and between two equal runs of resident weights."""
    rows = [["streaming", "attention", "losses", "gradients", "equal runs", "answers"]]
    for in_4bit in (True, False):
        for exact in (True, False):
            for layers in (0, 1, 12):
                rows.append(streaming_row(folder, in_4bit, exact, layers))
    return rows


def streaming_row(folder: Path, in_4bit: bool, exact: bool, layers: int) -> list[str]:
    resident = our_decoder(folder, None if in_4bit else 999, in_4bit)
    streamed = our_decoder(folder, layers, in_4bit)
    assert streamed.streams and not streamed.unpinned, "nothing streams"
    if exact:
        for decoder in (resident, streamed):
            exactly = dict.fromkeys(decoder.layer_pass.attentions, DifferentiatedAttention(segmentwise))
            decoder.layer_pass.attentions = exactly
    with sdpa_kernel(SDPBackend.MATH):  # its backward adds up in the same order each time
        once, again, other = measured(resident), measured(resident), measured(streamed)
    same = torch.equal(answers(resident, folder), answers(streamed, folder))
    differences = [largest(once[0], other[0]), largest(once[1], other[1]), largest(once[1], again[1])]
    return [
        f"{'4 bits' if in_4bit else 'bf16'}, {layers} layers resident",
        "SDPA" if exact else "flash",
        *(f"{difference:.1e}" if difference else "0" for difference in differences),
        "equal" if same else "DIFFERENT",
    ]


def largest(these: list[Tensor], those: list[Tensor]) -> float:
    return max(float((a - b).abs().max()) for a, b in zip(these, those, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", default=["0.5b"])
    parser.add_argument("--streaming", action="store_true", help="compare only resident and streamed weights")
    parser.add_argument("--layers", type=int, help="only so many layers")
    asked = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cuda.enable_cudnn_sdp(False)
    for size in asked.sizes:
        started = time.time()
        config = qwen_config(size)
        if asked.layers is not None:
            config.num_hidden_layers = asked.layers
            config.layer_types = config.layer_types[: asked.layers]
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            model = random_model(config, "cuda")
            model.save_pretrained(folder)
            print(f"\n{size}, {config.num_hidden_layers} layers", flush=True)
            print(table(compare_streaming(folder)), flush=True)
            if not asked.streaming:
                compare_with_bitsandbytes(folder, model)
        print(f"{time.time() - started:.0f} s", flush=True)
        del model
        torch.cuda.empty_cache()


def compare_with_bitsandbytes(folder: Path, model: Any) -> None:
    decoder, theirs = our_decoder(folder), by_bitsandbytes(folder)
    print(table(compare_bits(decoder, theirs)), flush=True)
    print(table(compare_gradients(folder, model, theirs, decoder)), flush=True)


if __name__ == "__main__":
    main()
