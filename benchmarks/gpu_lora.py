"""LoRA on one GPU: our packed engine against TRL, the same batches, one process per side.

    python benchmarks/gpu_lora.py                    about 7 minutes on an H200
    python benchmarks/gpu_lora.py --quick            the 0.5B shape only
    python benchmarks/gpu_lora.py --profile          where our step's time goes at the 0.5B shape
    python benchmarks/gpu_lora.py --sizes 7b --sides ours "ours, fp8"
    python benchmarks/gpu_lora.py --sizes 7b --examples 160 --sides ours "Unsloth, no checkpointing"

Qwen2.5 shapes with random bf16 weights, batches of 8 examples (about 4,000 tokens), LoRA r=16 on all linear
modules, AdamW; data pipeline, clipping, schedule and logging are timed for everyone. Useful tokens are those
that are no padding. MFU counts 4 FLOP per weight and useful token, against 790 TFLOP/s. Time to the first
step counts from the start of the process: imports, making the weights, compilation. Unsloth runs
by BACKPROPAGATE_UNSLOTH__PYTHON, the Python of an environment that has it, on weights from a folder.

TRL and Unsloth train for --warm-up-s-others seconds before their first window, since they compile or
plan for new lengths. With --examples 160 the same 20 batches come again and again, so that after
one round each of its lengths has been there. "spread" is the fastest window by the slowest.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Protocol

import unsloth_side
from workload import (
    EXAMPLES_PER_STEP,
    PEAK_FLOPS,
    Windows,
    examples,
    make_importable,
    peaks,
    shape_config,
    table,
    write_random_model,
)

OURS = {
    "ours": {},
    "ours, recompute gate_up": {"recompute": "gate_up"},
    "ours, recompute everything": {"recompute": "everything"},
    "ours, fp8": {"base_precision": "fp8"},
    "ours, 4096-token steps": {"tokens_per_step": 4096, "micro_batch_tokens": 4096},
    "ours, 16384-token steps": {"tokens_per_step": 16384},
    "ours, 4 bits": {"load_in_4bit": True},
    "ours, 4 bits, recompute everything": {"load_in_4bit": True, "recompute": "everything"},
}
TRL = {"TRL, checkpointing": True, "TRL, no checkpointing": False}
UNSLOTH = {
    "Unsloth": {"checkpointing": True, "load_in_4bit": False},
    "Unsloth, no checkpointing": {"checkpointing": False, "load_in_4bit": False},
    "Unsloth, 4 bits": {"checkpointing": True, "load_in_4bit": True},
    "Unsloth, 4 bits, no checkpointing": {"checkpointing": False, "load_in_4bit": True},
}
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
DEFAULT_SIDES = {
    "7b": ["ours", "TRL, checkpointing", "TRL, no checkpointing", "ours, recompute everything"],
    "0.5b": ["ours", "TRL, checkpointing", "TRL, no checkpointing", "ours, 4096-token steps"],
}
GOALS = {("7b", "TRL, checkpointing"): 4.5, ("7b", "TRL, no checkpointing"): 3.2}
GOALS |= {("0.5b", "TRL, checkpointing"): 5.0, ("0.5b", "TRL, no checkpointing"): 5.0}
TO_OURS = {("7b", "ours, fp8"): 1.3}
"""Goals for the speed of a side as a ratio to ours, where that is to be above 1."""


class Timing(Protocol):
    """What watches a training: `tick` after each optimizer step until `done`."""

    @property
    def done(self) -> bool: ...

    def tick(self, tokens: int) -> None: ...


def run_side(side: str, size: str, windows: Windows, device: str, count: int) -> dict[str, Any]:
    """One side in this process, on so many examples."""
    import torch

    make_importable()
    from backpropagate.training.engine.packed.decoder_config import read_decoder_config

    cuda = device == "cuda"
    if cuda:
        # It plans anew for every shape; TRL is faster without it.
        torch.backends.cuda.enable_cudnn_sdp(False)
        torch.cuda.reset_peak_memory_stats()
    if side in UNSLOTH:
        measured = unsloth(side, size, windows, count)
    else:
        train = ours if side in OURS else trl
        who = train(side, size, windows, device, count)
        measured = {**windows.result(), "who": who, **peaks(cuda)}
    parameters = read_decoder_config(shape_config(size)).parameters
    return {
        "side": side,
        "size": size,
        **measured,
        "mfu": round(measured["useful_tok_s"] * 4 * parameters / PEAK_FLOPS, 3),
    }


def ours(side: str, size: str, windows: Timing, device: str, count: int) -> str:
    from our_side import plan_of, random_decoder, train

    precision = "bfloat16" if device == "cuda" else "float32"
    plan = plan_of(device, precision, batch_size=EXAMPLES_PER_STEP, **OURS[side])

    def after_step(tokens: int) -> bool:
        windows.tick(tokens)
        return windows.done

    decoder = random_decoder(shape_config(size), plan)
    train(decoder, plan, examples(size, count), after_step)
    return ", ".join(sorted({type(each).__name__ for each in decoder.layer_pass.attentions.values()}))


def trl(side: str, size: str, windows: Timing, device: str, count: int) -> str:
    import torch
    from our_side import in_step_order, plan_of
    from transformers import AutoModelForCausalLM
    from trl_side import trainer

    bf16 = device == "cuda"
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(
            shape_config(size), dtype=torch.bfloat16 if bf16 else torch.float32
        )
    made_examples = examples(size, count)
    plan = plan_of(device, "float32", batch_size=EXAMPLES_PER_STEP)

    def after_step(tokens: int) -> bool:
        windows.tick(tokens)
        return windows.done

    made, who = trainer(
        model,
        in_step_order(made_examples, plan),
        after_step,
        per_device_train_batch_size=EXAMPLES_PER_STEP,
        gradient_checkpointing=TRL[side],
        gradient_checkpointing_kwargs={"use_reentrant": False},
        bf16=bf16,
        use_cpu=not bf16,
    )
    made.train()
    return who


def unsloth(side: str, size: str, windows: Windows, count: int) -> dict[str, Any]:
    """In the Python that has it, with the weights of a folder that all its sides of a size share."""
    from our_side import in_step_order, plan_of

    folder = Path(tempfile.gettempdir()) / f"random-{size.replace(':', '-')}"
    if not list(folder.glob("model*.safetensors*")):
        write_random_model(folder, size)
    with tempfile.TemporaryDirectory() as scratch:
        job, rows = Path(scratch) / "job.json", Path(scratch) / "examples.json"
        plan = plan_of("cuda", "bfloat16", batch_size=EXAMPLES_PER_STEP)
        in_order = in_step_order(examples(size, count), plan)
        rows.write_text(json.dumps(in_order[: count // EXAMPLES_PER_STEP * EXAMPLES_PER_STEP]))
        said = {"windows": windows.count, "window_s": windows.seconds, "warm_up_s": windows.warmup_s}
        said |= {"started": time.time(), "longest": 2048}
        said |= {"model": str(folder), "examples": str(rows), "target_modules": TARGETS}
        job.write_text(json.dumps(said | UNSLOTH[side]))
        command = [os.environ["BACKPROPAGATE_UNSLOTH__PYTHON"], unsloth_side.__file__, str(job)]
        child = subprocess.run(command, capture_output=True, text=True, cwd=scratch)
    for line in child.stdout.splitlines():
        if line.startswith("RESULT "):
            return json.loads(line.removeprefix("RESULT "))
    raise SystemExit(child.stderr[-3000:])


def warm_up_s(side: str, arguments: argparse.Namespace) -> float:
    return arguments.warm_up_s if side in OURS else arguments.warm_up_s_others


def in_own_process(side: str, size: str, arguments: argparse.Namespace, limit_s: float) -> dict[str, Any]:
    """Run one side as a child; what went wrong is in its result."""
    command = [sys.executable, __file__, "--side", side, "--sizes", size, "--device", arguments.device]
    command += ["--windows", str(arguments.windows), "--window-s", str(arguments.window_s)]
    command += ["--warm-up-s", str(warm_up_s(side, arguments)), "--examples", str(arguments.examples)]
    command += ["--started", str(time.time())]
    try:
        child = subprocess.run(command, capture_output=True, text=True, timeout=limit_s)
    except subprocess.TimeoutExpired:
        return {"side": side, "size": size, "error": f"not done in {limit_s:.0f} s"}
    for line in child.stdout.splitlines():
        if line.startswith("RESULT "):
            return json.loads(line.removeprefix("RESULT "))
    sys.stderr.write(child.stderr[-3000:])
    return {
        "side": side,
        "size": size,
        "error": (child.stderr.strip().splitlines() or ["no output"])[-1][:150],
    }


def report(results: list[dict[str, Any]]) -> str:
    rows = [
        [
            "size", "side", "useful tok/s", "windows", "spread", "MFU", "peak GiB", "reserved", "tok/step",
            "first step s", "ours is",
        ]
    ]  # fmt: skip
    rates = {(r["size"], r["side"]): r["useful_tok_s"] for r in results if "error" not in r}
    for r in results:
        if "error" in r:
            rows.append([r["size"], r["side"], r["error"], *[""] * 8])
            continue
        base = rates.get((r["size"], "ours, 4 bits" if "4 bits" in r["side"] else "ours"))
        goal = GOALS.get((r["size"], r["side"]))
        ratio = "" if base is None or base == r["useful_tok_s"] else f"{base / r['useful_tok_s']:.2f}x"
        if ratio and (faster := TO_OURS.get((r["size"], r["side"]))):
            ratio = f"{ratio}; it is {r['useful_tok_s'] / base:.2f}x of ours (goal {faster}x)"
        rows.append(
            [
                r["size"], r["side"], f"{r['useful_tok_s']:,}", str(r["windows"]), f"{r['spread']:.2f}",
                f"{r['mfu']:.3f}", f"{r['peak_gib']:.1f}", f"{r['reserved_gib']:.1f}",
                str(r["tokens_per_step"]), f"{r['first_step_s']:.1f}",
                ratio + (f" (goal {goal}x)" if goal and ratio else ""),
            ]
        )  # fmt: skip
    who = "\n".join(sorted({f"{r['side']}: {r['who']}" for r in results if "who" in r}))
    return f"{who}\n\n{table(rows)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the 0.5B shape and short windows")
    parser.add_argument("--sizes", nargs="+", default=None, help="7b, 0.5b, tiny, 30b-a3b:8 (8 layers), …")
    parser.add_argument("--sides", nargs="+", default=None, choices=[*OURS, *TRL, *UNSLOTH])
    parser.add_argument(
        "--side", choices=[*OURS, *TRL, *UNSLOTH], help="run this one here (used by the parent)"
    )
    parser.add_argument("--profile", action="store_true", help="our side only, in this process")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--windows", type=int, default=3)
    parser.add_argument("--window-s", type=float, default=4.0)
    parser.add_argument("--warm-up-s", type=float, default=0.0, help="of our sides, after their first step")
    parser.add_argument("--warm-up-s-others", type=float, default=45.0, help="of the others")
    parser.add_argument(
        "--limit-s", type=float, default=150.0, help="for a side's imports, weights, compilation and windows"
    )
    parser.add_argument("--examples", type=int, default=2000, help="which come again and again")
    parser.add_argument(
        "--minutes", type=float, default=7.5, help="sides that would begin later are left out"
    )
    parser.add_argument("--started", type=float, default=time.time())
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.sizes = arguments.sizes or ["0.5b"]
        arguments.window_s = min(arguments.window_s, 2.0)
    if arguments.profile:
        from our_side import HostProfile

        for size in arguments.sizes or ["0.5b"]:
            host_profile = HostProfile(arguments.device == "cuda")
            ours("ours", size, host_profile, arguments.device, arguments.examples)
            print(f"{size}\n{host_profile.result()}", flush=True)
        return
    sizes = arguments.sizes or ["7b", "0.5b"]
    if arguments.side:
        windows = Windows(
            arguments.device == "cuda", arguments.windows, arguments.window_s,
            warmup_s=arguments.warm_up_s, started=arguments.started,
        )  # fmt: skip
        result = run_side(arguments.side, sizes[0], windows, arguments.device, arguments.examples)
        print("RESULT " + json.dumps(result), flush=True)
        return
    end = arguments.started + 60 * arguments.minutes
    results: list[dict[str, Any]] = []
    for size in sizes:
        for side in arguments.sides or DEFAULT_SIDES.get(size, ["ours", *TRL]):
            left = end - time.time()
            if left < 30:
                results.append({"side": side, "size": size, "error": "left out, the time is over"})
                continue
            limit_s = min(left, arguments.limit_s + warm_up_s(side, arguments))
            results.append(in_own_process(side, size, arguments, limit_s))
            print(json.dumps(results[-1]), flush=True)
    print("\n" + report(results))


if __name__ == "__main__":
    main()
