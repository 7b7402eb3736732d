"""From submitting a run to its first step: beside what cannot be avoided, or by its parts.

    python benchmarks/first_step.py MODEL_FOLDER [--rounds 5] [--engine auto]
    python benchmarks/first_step.py --size 7b --device cuda [--cold]     two minutes on an H100
    python benchmarks/first_step.py --model FOLDER --device cuda         the same with a model that is there

The first compares with a floor, both in processes of their own, in turn. The floor imports torch,
transformers, peft and TRL's trainer and loads tokenizer and model; the run does what its engine needs of
that, and all the rest up to the end of its first step.

The others train a model, of that shape with random weights or the given one, twice, with an empty and then
a filled cache of kernels, and say where the time went. With --cold the libraries' files are not in memory
before the first.

With --spare the service has a spare worker ready before each run, as a server has after an inspection.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import datetime
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import psutil
from workload import SIZES, table, write_random_model

if TYPE_CHECKING:
    from backpropagate import TrainingService

FLOOR = """
import sys, os
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTTrainer, SFTConfig
AutoTokenizer.from_pretrained(sys.argv[1])
AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32)
"""
ROW = {"messages": [{"role": "user", "content": "Say it."}, {"role": "assistant", "content": "It is said."}]}


STEPS = 40


def floor_s(model: str) -> float:
    before = time.perf_counter()
    subprocess.run([sys.executable, "-c", FLOOR, model], check=True, capture_output=True)
    return time.perf_counter() - before


@asynccontextmanager
async def a_service(spare: bool) -> AsyncGenerator[TrainingService]:
    """With or without a spare worker that has nothing left to import, and that is to carry out the run."""
    from backpropagate import TrainingService

    service = TrainingService()
    if not spare:
        yield service
        return
    with service.keeping_spare():
        service.dispatch.announce("inspect")
        worker = max(psutil.Process().children(), key=psutil.Process.create_time)
        used, before = worker.cpu_times().user, -1.0
        while used > before or used < 1:
            await anyio.sleep(1)
            used, before = worker.cpu_times().user, used
        yield service
        if worker.pid not in {service.store.find(run).state().pid for run in service.store.ids()}:
            sys.exit("the spare was not used")


async def first_step_s(model: str, engine: str, folder: Path, *, spare: bool) -> float:
    from backpropagate.training.requests.train import train_spec

    data = folder / "rows.jsonl"
    data.write_text((json.dumps(ROW) + "\n") * 16)
    arguments = {"dataset": str(data), "model": model, "engine": engine, "steps": 1, "batch_size": 4}
    seconds = 0.0
    async with a_service(spare) as service:
        before = time.perf_counter()
        run = await service.submit(train_spec(arguments=arguments))
        async for events in service.watch(run.run_id):
            if not seconds and any(event.kind == "step" for event in events):
                seconds = time.perf_counter() - before
    return seconds


def beside_the_floor(model: str, rounds: int, engine: str, *, spare: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.environ["BACKPROPAGATE_HOME"] = f"{folder}/home"
        os.environ["BACKPROPAGATE_RUNTIME_DIR"] = f"{folder}/slots"
        first_step = partial(first_step_s, model, engine, Path(folder), spare=spare)
        pairs = [(anyio.run(first_step), floor_s(model)) for _ in range(rounds + 1)]
        pairs = pairs[1:]  # the first round warms the disk's cache
    ratios = [ours / floor for ours, floor in pairs]
    ours_s, floor_s_ = (statistics.median(side) for side in zip(*pairs, strict=True))
    print(f"first step {ours_s:.1f} s, floor {floor_s_:.1f} s")
    print(f"ratio: {statistics.median(ratios):.2f} (least {min(ratios):.2f}, most {max(ratios):.2f})")


async def by_parts(model: Path, device: str, data: Path, *, spare: bool) -> tuple[dict[str, float], Any]:
    """Seconds of each part up to the end of the first step, and the run's result."""
    from backpropagate.training.events import Phase
    from backpropagate.training.requests.train import train_spec
    from backpropagate.training.runs.event_log import all_events

    asked = {"dataset": str(data), "model": str(model), "device": device, "batch_size": 8, "steps": STEPS}
    async with a_service(spare) as service:
        before = time.time()
        run = await service.submit(train_spec(arguments=asked))
        view = await service.wait(run.run_id)
    folder = Path(view.run_folder)
    if view.status != "completed":
        sys.exit(f"{view.error}\n{(folder / 'worker.log').read_text()[-3000:]}")
    started = next(event for event in all_events(folder / "events.jsonl") if isinstance(event, Phase)).t
    spawned = datetime.fromisoformat(started.replace("Z", "+00:00")).timestamp() - before
    result: Any = view.result
    return {"the worker's process": spawned, **result.before_first_step}, result


def write_rows(path: Path, count: int = 800) -> Path:
    """Chats of random words; a byte is a token, and eight of them are about 4,000."""
    words = random.Random(0)

    def said(letters: int) -> str:
        return " ".join("".join(words.choices("aeinorst", k=6)) for _ in range(letters // 7))

    rows = [
        {
            "messages": [
                {"role": role, "content": said(words.randint(100, 350))} for role in ("user", "assistant")
            ]
        }
        for _ in range(count)
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def forget_libraries() -> None:
    """Let the system forget the files of the libraries, as after a restart; on Linux only."""
    for name in ("torch", "transformers", "triton", "nvidia", "sympy"):
        found = find_spec(name)
        for folder in found.submodule_search_locations or () if found else ():
            for file in filter(Path.is_file, Path(folder).rglob("*")):
                with file.open("rb") as opened:
                    os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def twice(size: str, given: Path | None, device: str, *, cold: bool, spare: bool) -> None:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:  # the worker may still be ending
        os.environ["BACKPROPAGATE_HOME"] = f"{folder}/home"
        os.environ["BACKPROPAGATE_RUNTIME_DIR"] = f"{folder}/slots"
        model = given or write_random_model(Path(folder) / "model", size)
        data = write_rows(Path(folder) / "rows.jsonl")
        if cold:
            forget_libraries()
        parts = partial(by_parts, model, device, data, spare=spare)
        (first, result), (second, again) = (anyio.run(parts) for _ in range(2))
        rows = [["seconds", "first run", "second run"]]
        for part in [*first, *(part for part in second if part not in first), "in all"]:
            found = [
                sum(side.values()) if part == "in all" else side.get(part, 0.0) for side in (first, second)
            ]
            rows.append([part, *(f"{seconds:.1f}" for seconds in found)])
        print(table(rows))
        print(
            f"{result.engine} engine on {result.device_name}, steps 1 to {STEPS}: "
            f"{result.tokens_per_s:,.0f} and {again.tokens_per_s:,.0f} tokens/s"
        )
        kernels = [file for file in Path(folder, "home", "cache", "kernels").rglob("*") if file.is_file()]
        print(f"kernels: {len(kernels)} files, {sum(f.stat().st_size for f in kernels) / 2**20:.1f} MiB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", metavar="MODEL_FOLDER")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--engine", default="auto", choices=["auto", "trl"])
    parser.add_argument("--size", choices=SIZES)
    parser.add_argument("--model", type=Path, dest="given", help="a folder instead of random weights")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    parser.add_argument("--cold", action="store_true")
    parser.add_argument("--spare", action="store_true")
    asked = parser.parse_args()
    if asked.size or asked.given:
        twice(asked.size, asked.given, asked.device, cold=asked.cold, spare=asked.spare)
    elif asked.model:
        beside_the_floor(asked.model, asked.rounds, asked.engine, spare=asked.spare)
    else:
        parser.error("give the folder of a model, --size or --model")
