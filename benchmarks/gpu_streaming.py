"""Speed and memory of a large base: in 4 bits or bf16, on the GPU or streaming from host memory.

    python benchmarks/gpu_streaming.py CASE …        CASE is SIZE[:SETTING=VALUE]…, for example
    python benchmarks/gpu_streaming.py 7b:bits=4 7b:bits=4:weights=host:tokens=4096 32b:bits=4:free=12

Settings: bits (4 or 16), weights (auto, gpu, host), recompute, tokens (a step's; else 8 examples are a
step), free (GiB that another process leaves of the card). Qwen2.5 shapes with random weights that are made
on the GPU layer by layer; LoRA r=16 on all linear modules, AdamW, the real loop. What is not given is
chosen by the planner for the memory that is free. Each case runs in a process of its own; medians of three
windows; useful tokens are all but padding.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from streaming_case import in_process, settings_of
from workload import PEAK_FLOPS, Windows, examples, make_importable, qwen_config, table

GIB = 2**30


def choice_of(
    config: Any, asked: dict[str, str], free: int, lengths: list[int], card: str, steps: int | None = None
) -> Any:
    """The planner's choices for a model of this config, and the tokens per second that it expects.

    Args:
        steps: of the run; None: an epoch. Longer ones have more CUDA graphs.
    """
    from backpropagate.training.config.specs import ModelGroup, TrainingGroup, TrainSpec
    from backpropagate.training.planning.choices import choose, work_of
    from backpropagate.training.planning.data_facts import DataFacts
    from backpropagate.training.planning.decoder_shape import decoder_shape
    from backpropagate.training.planning.machine import Machine
    from backpropagate.training.planning.measured import card_of
    from backpropagate.training.planning.speed import tokens_per_s

    training: dict[str, Any] = {name: asked[name] for name in ("weights", "recompute") if name in asked}
    if "tokens" in asked:
        training["micro_batch_tokens"] = int(asked["tokens"])
    in_4bit = asked.get("bits", "4") == "4"
    spec = TrainSpec(
        model=ModelGroup(name="random", load_in_4bit=in_4bit),
        training=TrainingGroup(batch_size=8, steps=steps, **training),
    )
    entries = config.to_dict()
    shape, machine = decoder_shape(entries), Machine("cuda", free, 1, name=card)
    # Steps of given tokens are as full as can be; others are those of the examples.
    data = DataFacts(len(lengths), 0, None if "tokens" in asked else lengths, 0.5, "")
    made = choose(spec, entries, shape, machine, data)
    return made, tokens_per_s(work_of(spec, shape, made), card_of(machine))


def settings_chosen(memory: Any) -> tuple[Any, ...]:
    """What the peak of a `MemoryChoice` belongs to."""
    return memory.recompute, memory.micro_batch_tokens, memory.resident_layers


def run_case(case: str, window_s: float, warm_up_s: float) -> dict[str, Any]:
    """One case in this process."""
    make_importable()
    import torch
    from our_side import plan_of, random_decoder, train

    size, asked = case.split(":")[0], settings_of(case)
    torch.backends.cuda.enable_cudnn_sdp(False)
    config = qwen_config(size)
    free = torch.cuda.mem_get_info()[0]
    made_examples = examples(size)
    lengths = [len(example.input_ids) for example in made_examples]
    card = torch.cuda.get_device_name()
    made, expected = choice_of(config, asked, free, lengths, card)
    choice = made.memory
    given: dict[str, Any] = {"tokens_per_step": int(asked["tokens"])} if "tokens" in asked else {}
    plan = plan_of(
        "cuda", "bfloat16", recompute=choice.recompute, batch_size=8, resident_layers=choice.resident_layers,
        micro_batch_tokens=choice.micro_batch_tokens, load_in_4bit=asked.get("bits", "4") == "4", **given,
    )  # fmt: skip
    started = time.time()
    decoder = random_decoder(config, plan)
    torch.cuda.synchronize()
    built = time.time() - started
    weights = torch.cuda.memory_allocated()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    windows = Windows(True, 3, window_s, warmup_steps=4, warmup_s=warm_up_s)

    def after_step(tokens: int) -> bool:
        windows.tick(tokens)
        return windows.done

    train(decoder, plan, made_examples, after_step)
    result = windows.result()
    same, _ = choice_of(config, asked, free, lengths, card, steps=result["steps"])  # the run that it was
    planned = same.memory if settings_chosen(same.memory) == settings_chosen(choice) else choice
    return {
        "case": case, "recompute": choice.recompute, "micro-batch": choice.micro_batch_tokens,
        "resident": "all" if choice.resident_layers is None else choice.resident_layers,
        "tok/s": result["useful_tok_s"], "windows": result["windows"],
        "tokens/step": result["tokens_per_step"],
        "mfu": round(result["useful_tok_s"] * 4 * decoder.config.parameters / PEAK_FLOPS, 3),
        "weights GiB": round(weights / GIB, 2),
        "peak GiB": round(torch.cuda.max_memory_allocated() / GIB, 2),
        "reserved GiB": round(torch.cuda.max_memory_reserved() / GIB, 2),
        "planned peak": round(planned.peak / GIB, 2), "planned tok/s": round(expected), "card": card,
        "unpinned": decoder.unpinned, "made s": round(built, 1),
        "first step s": result["first_step_s"],
    }  # fmt: skip


def main() -> None:
    if sys.argv[1:2] == ["--here"]:
        print(json.dumps(run_case(sys.argv[2], *map(float, sys.argv[3:]))))
        return
    if not sys.argv[1:] or sys.argv[1].startswith("-"):
        print(__doc__)
        return
    rows: list[list[str]] = []
    for case in sys.argv[1:]:
        result = in_process(case)
        print(json.dumps(result), flush=True)
        rows.append([str(result.get(name, "")) for name in COLUMNS])
    print(table([COLUMNS, *rows]))


COLUMNS = [
    "case", "recompute", "micro-batch", "resident", "tok/s", "tokens/step", "mfu", "weights GiB", "peak GiB",
    "reserved GiB", "planned peak", "planned tok/s", "made s",
]  # fmt: skip

if __name__ == "__main__":
    main()
