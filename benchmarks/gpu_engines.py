"""The engines of this package on one GPU, one after the other, through the service as every run goes.

    python benchmarks/gpu_engines.py [--engines auto trl unsloth] [--steps 60] [--size 0.5b]
    python benchmarks/gpu_engines.py --size 7b --load-in-4bit --free 6 8 12 16 --engines auto unsloth \
        --steps 24 --only one-length --held-out 0                        with so many GiB of the card free
    python benchmarks/gpu_engines.py --size tiny --device cpu            the program itself

Trains a LoRA of rank 16 on all linear layers with each engine: a Qwen2.5 shape with random weights, as many
rows of text as the steps need, of one length or of mixed lengths. Useful tokens a second are those of the
second half of the steps; what compiles and warms up lies in the first, before which an engine with rows of
one length has seen all its shapes. Peaks are torch's, in the process that trains. Losses must agree. What the
plan chose stands beside them. An engine that could not train is shown with what it said and what trained in
its place. `unsloth` needs BACKPROPAGATE_UNSLOTH__PYTHON.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import anyio
from memory_hog import only_free
from run_speed import seconds, speed_of, steps_of
from workload import FAMILIES, SIZES, make_importable, table, write_random_model

BATCH = 8
LENGTHS = ("one-length", "mixed")
COLUMNS = [
    "rows", "free GiB", "engine", "trained by", "tok/s", "tok/step", "first step s", "peak GiB",
    "planned GiB", "plan", "losses", "ours is",
]  # fmt: skip


def write_rows(path: Path, rows: int, mixed: bool) -> Path:
    """Text of 500 bytes, or of 100 to 900, which are as many tokens."""
    draw = random.Random(0)
    with path.open("w", encoding="utf-8") as file:
        for _ in range(rows):
            length = draw.randint(100, 900) if mixed else 500
            file.write(json.dumps({"text": "".join(draw.choices("abcdefgh ", k=length))}) + "\n")
    return path


async def train(engine: str, model: Path, data: Path, asked: argparse.Namespace) -> dict[str, Any]:
    """One run, and what it was like; of a run that failed, the error."""
    from backpropagate import TrainingService
    from backpropagate.training.errors import BackpropagateError
    from backpropagate.training.requests.train import train_spec

    service = TrainingService()
    arguments: dict[str, Any] = {
        "dataset": str(data),
        "model": str(model),
        "engine": engine,
        "steps": asked.steps,
        "batch_size": BATCH,
        "lora_r": 16,
        "max_seq_length": 2048,
        "device": asked.device,
        "load_in_4bit": asked.load_in_4bit,
        "held_out": "auto" if asked.held_out is None else asked.held_out,
    }
    try:
        run = await service.submit(train_spec(arguments=arguments))
    except BackpropagateError as error:
        return {"error": f"{error.code}: {error.message}"}
    async for _ in service.watch(run.run_id):
        pass
    pid = service.store.find(run.run_id).state().pid
    if pid is not None:
        wait_for_exit(pid)
    view = await service.get(run.run_id)
    folder = Path(view.run_folder)
    if view.status != "completed":
        sys.stderr.write((folder / "worker.log").read_text(encoding="utf-8")[-2500:])
        code, message = (view.error.code, view.error.message) if view.error else (view.status, "")
        return {"error": f"{code}: {message}"}
    try:
        return {**measured(folder, view), "warnings": view.warnings}
    except ValueError as error:
        return {"error": str(error)}


def wait_for_exit(pid: int) -> None:
    """Until the worker has given back the card's memory: the next run must find no more than is said."""
    import psutil

    with suppress(psutil.NoSuchProcess):
        psutil.Process(pid).wait(timeout=60)


def measured(folder: Path, view: Any) -> dict[str, Any]:
    result, speed = view.result, speed_of(folder)
    plan = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
    begun = seconds(view.started_at or view.created_at)
    return {
        "trained by": result.engine,
        "reason": result.engine_reason,
        "tok/s": round(speed.tokens_per_s),
        "tok/step": round(speed.tokens_per_step),
        "measured steps": speed.steps,
        "first step s": round(seconds(steps_of(folder)[0]["t"]) - begun, 1),
        "peak GiB": round((result.peak_memory_mib or 0) / 1024, 2),
        "planned GiB": round((plan["planned_peak_mib"] or 0) / 1024, 2),
        "plan": chosen(plan, result.engine),
        "losses": f"{result.first_loss:.4f} → {result.final_loss:.4f}",
        "held out": [result.eval_loss_before, result.eval_loss],
    }


def chosen(plan: dict[str, Any], engine: str) -> str:
    """Recomputed, tokens at a time, layers on the GPU; of engines that pad, examples at a time."""
    if engine in ("trl", "unsloth"):
        return f"{plan['recompute']}, {plan['gradient_accumulation_steps']} x {plan['batch_size']} examples"
    layers = "all" if plan["resident_layers"] is None else plan["resident_layers"]
    return f"{plan['recompute']}, {plan['micro_batch_tokens']} tokens, {layers} layers"


def only_in_its_own_name(found: dict[str, Any]) -> bool:
    """Whether the engine that was asked for has trained: else the figure is another's."""
    return "error" not in found and found["engine"] in ("auto", found["trained by"])


def report(results: list[dict[str, Any]]) -> str:
    ours = {
        (found["rows"], found["free GiB"]): found["tok/s"]
        for found in results
        if found["engine"] == "auto" and "error" not in found
    }
    lines, notes = [COLUMNS], list[str]()
    for found in results:
        base = ours.get((found["rows"], found["free GiB"]))
        others = base and found["engine"] != "auto" and only_in_its_own_name(found)
        ratio = f"{base / found['tok/s']:.2f}x" if base and others else ""
        known = {**found, "trained by": found.get("trained by", "none, see below"), "ours is": ratio}
        lines.append([str(known.get(name, "")) for name in COLUMNS])
        where = f"{found['rows']}, {found['free GiB']} GiB free, {found['engine']}"
        notes += [f"{where}: {note}" for note in notes_of(found)]
    return "\n".join([table(lines), *notes])


def notes_of(found: dict[str, Any]) -> list[str]:
    """The error, which engine trained instead and why, and what a lack of memory has changed."""
    if "error" in found:
        return [found["error"]]
    instead = [] if only_in_its_own_name(found) else [f"{found['trained by']}: {found['reason']}"]
    return instead + [warning for warning in found["warnings"] if "memory" in warning.lower()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--engines", nargs="+", default=["auto", "trl", "unsloth"])
    parser.add_argument("--size", default="0.5b", choices=[*SIZES, *FAMILIES])
    parser.add_argument("--model", type=Path, help="a folder instead of a model with random weights")
    parser.add_argument("--load-in-4bit", action="store_true")
    parser.add_argument("--free", type=float, nargs="+", help="GiB; all that the card has if not given")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--only", choices=LENGTHS, help="the lengths of rows; both if not given")
    parser.add_argument("--held-out", type=float, help="share of the rows; the service's own if not given")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    asked = parser.parse_args()
    if asked.free and asked.device == "cpu":
        parser.error("--free holds a GPU's memory: leave out --device cpu")
    make_importable()
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["BACKPROPAGATE_HOME"] = f"{scratch}/home"
        os.environ["BACKPROPAGATE_RUNTIME_DIR"] = f"{scratch}/slots"
        model = asked.model or write_random_model(Path(scratch) / "model", asked.size)
        results: list[dict[str, Any]] = []
        for lengths in [asked.only] if asked.only else LENGTHS:
            data = write_rows(Path(scratch) / f"{lengths}.jsonl", asked.steps * BATCH, lengths == "mixed")
            for free in asked.free or [None]:
                for engine in asked.engines:
                    with nullcontext() if free is None else only_free(free):
                        found = anyio.run(train, engine, model, data, asked)
                    results.append({"rows": lengths, "free GiB": free or "all", "engine": engine, **found})
                    print(json.dumps(results[-1]), flush=True)
        print(report(results))


if __name__ == "__main__":
    main()
