"""Whether CUDA graphs compute what the same kernels compute one by one, and what they gain.

    python benchmarks/gpu_graphs.py                  the 0.5B shape, about a minute on an H200
    python benchmarks/gpu_graphs.py --bits 4         its base in 4 bits; 8: in FP8

Batches of different numbers and lengths of examples go through both; losses and all LoRA gradients are
compared, then both are timed on the same batches.
"""

from __future__ import annotations

import argparse
import time
from itertools import cycle, islice
from typing import Any

import torch
from workload import examples, make_importable, qwen_config, table

make_importable()

from our_side import plan_of, random_decoder  # noqa: E402

from backpropagate.training.engine.loop.batch import packed_batch  # noqa: E402
from backpropagate.training.engine.packed.cuda_graphs import GraphedDecoder, graphs_help  # noqa: E402
from backpropagate.training.planning.graphs import ROW_MULTIPLE  # noqa: E402

BATCHES = 24
TIMED = 150


def main(bits: int) -> None:
    base: dict[str, Any] = {"load_in_4bit": bits == 4, "base_precision": "fp8" if bits == 8 else "auto"}
    plan = plan_of("cuda", "bfloat16", batch_size=8, **base)
    decoder = random_decoder(qwen_config("0.5b"), plan)
    torch.manual_seed(0)
    decoder.lora.values.normal_(0, 0.02)
    decoder.refresh()
    assert graphs_help(decoder)
    graphed = GraphedDecoder(decoder)
    data = examples("0.5b")
    batches = [
        packed_batch(data[8 * i : 8 * i + 1 + i % 8], multiple=ROW_MULTIPLE).to(decoder.device)
        for i in range(BATCHES)
    ]
    weight = torch.full((), 1e-3, device=decoder.device)
    worst_loss = worst_gradient = worst_evaluation = 0.0
    for batch in batches:
        before = decoder.label_losses(batch)
        runs = [gradients(decoder, batch, weight), *(gradients(graphed, batch, weight) for _ in range(3))]
        for loss, flat in runs[1:]:
            worst_loss = max(worst_loss, abs(loss - runs[0][0]) / abs(runs[0][0]))
            worst_gradient = max(worst_gradient, float((flat - runs[0][1]).norm() / runs[0][1].norm()))
        worst_evaluation = max(worst_evaluation, float((decoder.label_losses(batch) - before).abs().max()))
    print(f"evaluations before and after differ by {worst_evaluation:.2g}")
    print(f"largest relative difference: loss {worst_loss:.2g}, gradients {worst_gradient:.2g}")
    again = [gradients(decoder, batches[0], weight)[1] for _ in range(2)]
    print(
        f"two equal runs without graphs differ by {float((again[0] - again[1]).norm() / again[0].norm()):.2g}"
    )
    rows = [["", "tokens/s"]]
    for name, runner in (("one by one", decoder), ("graphs", graphed)):
        rows.append([name, f"{speed(runner, batches, weight):,.0f}"])
    print(table(rows))
    print(f"peak {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB")


def gradients(runner: Any, batch: Any, weight: torch.Tensor) -> tuple[float, torch.Tensor]:
    lora = getattr(runner, "decoder", runner).lora
    lora.gradients.zero_()
    loss = float(runner.forward_backward(batch, weight, seed=0, recompute="nothing"))
    return loss, lora.gradients.clone()


def speed(runner: Any, batches: list[Any], weight: torch.Tensor) -> float:
    chosen = list(islice(cycle(batches), TIMED))
    torch.cuda.synchronize()
    start = time.perf_counter()
    for batch in chosen:
        runner.forward_backward(batch, weight, seed=0, recompute="nothing")
    torch.cuda.synchronize()
    return sum(batch.useful_tokens for batch in chosen) / (time.perf_counter() - start)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bits", type=int, choices=(4, 8, 16), default=16)
    main(parser.parse_args().bits)
