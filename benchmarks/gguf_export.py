"""Adapter to GGUF: one pass over the base against merging, converting and quantising one after the other.

    python benchmarks/gguf_export.py MODEL_FOLDER LLAMA_CPP [--rounds 3 --only q8_0 --times 4 --keep-dtype]

LLAMA_CPP is llama.cpp's source: its folder, or the archive that
`pip download --no-binary :all: --no-deps llama-cpp-python` gives (or LLAMA_CPP_SDIST names). The usual way is
PEFT's merge_and_unload and save_pretrained, convert_hf_to_gguf.py, and for q4_k_m llama_model_quantize. Every
step is a process of its own. CPU-seconds are user and system time; memory is the largest step's peak resident
set; bytes written are those of all write calls, whole files and those in between alike.

The base is copied in bf16 first, as models are published; --times repeats its layers, since starting Python
and its libraries is most of what a small model costs the usual way.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

from workload import make_importable

RANK = 16
GOALS = {"CPU-seconds": 0.45, "peak MiB": 0.5, "MB written": 0.25}
SEVEN_B = {"weights": 7.62e9, "layers": 28}
BITS = {"q8_0": 8.5, "q4_k_m": 4.85}
PROBE_BYTES = 1 << 29


@dataclass(frozen=True)
class Cost:
    """What one or more processes took."""

    cpu_s: float
    wall_s: float
    peak_mib: float
    written_mb: float

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.cpu_s + other.cpu_s,
            self.wall_s + other.wall_s,
            max(self.peak_mib, other.peak_mib),
            self.written_mb + other.written_mb,
        )

    def figures(self) -> dict[str, float]:
        return {"CPU-seconds": self.cpu_s, "peak MiB": self.peak_mib, "MB written": self.written_mb}


# --- The sides, each in a process of its own. ---
def ours(base: Path, adapter: Path, target: Path, quantization: str, stages: Path, verified: bool) -> None:
    """Writes the CPU-seconds before writing, of writing and of verifying into `stages`."""
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # as the worker does, before NumPy is imported
    make_importable()
    from backpropagate.training.export.gguf import export as gguf_export
    from backpropagate.training.export.verify.tensors import verify_tensors
    from backpropagate.training.hardware.cpu import training_threads

    moments = {"start": 0.0}

    def report(event: Any) -> None:
        moments.setdefault(event.phase, time.process_time())

    def verify(file: Any) -> None:
        if verified:
            verify_tensors(file, training_threads(), report)

    request = gguf_export.GgufRequest(
        base, adapter, "bench", quantization, target, target.with_suffix(".part"), {}, training_threads()
    )
    gguf_export.export_gguf(request, verify, report)
    stages.write_text(json.dumps(moments | {"end": time.process_time()}))


def merge(base: Path, adapter: Path, target: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype="auto"), adapter)
    model.merge_and_unload().save_pretrained(target)
    AutoTokenizer.from_pretrained(base).save_pretrained(target)


def quantise(source: Path, target: Path) -> None:
    import ctypes

    import llama_cpp

    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_K_M
    parameters.nthread = len(os.sched_getaffinity(0))
    if llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(parameters)):
        raise SystemExit("llama.cpp refused")


# --- Measuring. ---
def measured(command: list[str]) -> Cost:
    """The cost of a command and its children, which must succeed."""
    began = time.monotonic()
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen([sys.executable, *command], stdout=said, stderr=said)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        counters = dict(line.split(": ") for line in Path(f"/proc/{process.pid}/io").read_text().splitlines())
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            raise SystemExit(f"{command} failed:\n{said.read().decode()[-3000:]}")
    return Cost(
        usage.ru_utime + usage.ru_stime,
        time.monotonic() - began,
        usage.ru_maxrss / 1024,
        int(counters["wchar"]) / 1e6,
    )


def side(name: str, *arguments: object) -> list[str]:
    return [__file__, "--side", name, *map(str, arguments)]


def usual_way(base: Path, adapter: Path, quantization: str, converter: Path, folder: Path) -> Cost:
    merged, plain = folder / "merged", folder / "plain.gguf"
    outtype = "f16" if quantization == "q4_k_m" else quantization
    steps = [
        side("merge", base, adapter, merged),
        [str(converter), str(merged), "--outtype", outtype, "--outfile", str(plain)],
    ]
    if quantization == "q4_k_m":
        steps.append(side("quantise", plain, folder / "theirs.gguf"))
    return reduce(Cost.__add__, map(measured, steps))


def write_base(model: Path, folder: Path, times: int, keep_dtype: bool) -> None:
    """A copy of a model in bf16, with its layers several times."""
    import torch
    from safetensors.torch import load_file, save_file

    shutil.copytree(model, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    config: dict[str, Any] = json.loads((model / "config.json").read_text())
    layers = config["num_hidden_layers"]
    tensors: dict[str, torch.Tensor] = {}
    for name, values in load_file(model / "model.safetensors").items():
        values = values if keep_dtype else values.to(torch.bfloat16)
        head, found, tail = name.partition("model.layers.")
        layer, _, part = tail.partition(".")
        for time_ in range(times if found else 1):
            again = f"{found}{int(layer) + time_ * layers}.{part}" if found else head
            tensors[again] = values.clone()
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    config |= {"num_hidden_layers": layers * times, "dtype": str(values.dtype).removeprefix("torch.")}
    config.pop("torch_dtype", None)
    (folder / "config.json").write_text(json.dumps(config))


def write_adapter(base: Path, folder: Path) -> Path:
    """A random LoRA on all linear layers of a base."""
    import numpy as np
    from safetensors.numpy import save_file

    from backpropagate.training.models.safetensors_files import stored_tensors

    folder.mkdir()
    random, tensors = np.random.default_rng(0), {}
    for name, tensor in stored_tensors(base).items():
        if name.endswith("_proj.weight"):
            module = f"base_model.model.{name.removesuffix('.weight')}"
            rows, columns = tensor.shape
            for letter, shape in (("A", (RANK, columns)), ("B", (rows, RANK))):
                values = (random.standard_normal(shape) * 0.01).astype(np.float32)
                tensors[f"{module}.lora_{letter}.weight"] = values
    save_file(tensors, folder / "adapter_model.safetensors")
    modules = sorted({name.split(".")[-3] for name in tensors})
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": RANK, "lora_alpha": 32}
    config |= {"target_modules": modules, "base_model_name_or_path": str(base), "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def disk_speed(folder: Path) -> tuple[float, float]:
    """Bytes a second of writing, synced, and of reading what is not in memory."""
    path, chunk = folder / "probe", os.urandom(1 << 24)
    began = time.monotonic()
    with path.open("wb") as file:
        for _ in range(PROBE_BYTES // len(chunk)):
            file.write(chunk)
        os.fsync(file.fileno())
    written = time.monotonic() - began
    began = time.monotonic()
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        while file.read(len(chunk)):
            pass
    read = time.monotonic() - began
    path.unlink()
    return PROBE_BYTES / written, PROBE_BYTES / read


# --- Telling. ---
def median(costs: list[Cost]) -> Cost:
    return Cost(*(statistics.median(getattr(cost, name) for cost in costs) for name in Cost.__annotations__))


def show(quantization: str, rounds: dict[str, list[Cost]]) -> None:
    usual = median(rounds["usual"])
    print(f"\n{quantization}: medians of {len(rounds['usual'])} rounds")
    print(f"{'':22}{'CPU-seconds':>14}{'wall s':>10}{'peak MiB':>12}{'MB written':>13}")
    for name, costs in rounds.items():
        cost = median(costs)
        print(f"{name:22}{cost.cpu_s:14.2f}{cost.wall_s:10.2f}{cost.peak_mib:12.0f}{cost.written_mb:13.0f}")
    for name in ("ours", "ours, not read back"):
        figures = median(rounds[name]).figures()
        for what, figure in figures.items():
            ratio = figure / usual.figures()[what]
            goal = GOALS[what]
            verdict = "" if name != "ours" else f" (goal {goal}: {'met' if ratio <= goal else 'MISSED'})"
            print(f"  {name} / usual, {what}: {ratio:.3f}{verdict}")


def project(quantization: str, stages: list[dict[str, float]], weights: float, folder: Path) -> None:
    """What a 7B would take, from the CPU-seconds per weight; starting does not grow with the model."""
    took = {
        "starting": statistics.median(s["writing"] for s in stages),
        "writing": statistics.median(s["proving"] - s["writing"] for s in stages),
        "reading back": statistics.median(s["end"] - s["proving"] for s in stages),
    }
    print("  CPU-seconds: " + ", ".join(f"{name} {seconds:.2f}" for name, seconds in took.items()))
    for name in ("writing", "reading back"):
        print(f"  {name}: {weights * 2 / took[name] / 1e6:.0f} MB of bf16 weights per CPU-second")
    seconds = took["starting"] + (took["writing"] + took["reading back"]) * SEVEN_B["weights"] / weights
    write, read = disk_speed(folder)
    size = SEVEN_B["weights"] * BITS[quantization] / 8
    floor = SEVEN_B["weights"] * 2 / read + size / write
    walls = ", ".join(f"{seconds / cores / 60:.1f} min on {cores} cores" for cores in (2, 4, 8, 16))
    print(f"  7B: {seconds / 60:.1f} CPU-minutes, {walls}")
    print(
        f"  floor: reading 15.2 GB at {read / 1e9:.2f} GB/s and writing {size / 1e9:.1f} GB at "
        f"{write / 1e9:.2f} GB/s: {floor / 60:.1f} min"
    )


def compare(base: Path, converter: Path, quantization: str, rounds: int, work: Path) -> None:
    from backpropagate.training.models.safetensors_files import stored_tensors

    adapter = work / "adapter"
    costs: dict[str, list[Cost]] = {"usual": [], "ours": [], "ours, not read back": []}
    stages: list[dict[str, float]] = []
    for _ in range(rounds):
        for name, found in costs.items():
            folder = Path(tempfile.mkdtemp(dir=work))
            if name == "usual":
                found.append(usual_way(base, adapter, quantization, converter, folder))
            else:
                arguments = (base, adapter, folder / "ours.gguf", quantization, folder / "stages.json")
                found.append(measured(side("ours", *arguments, name == "ours")))
            if name == "ours":
                stages.append(json.loads((folder / "stages.json").read_text()))
            shutil.rmtree(folder)
    show(quantization, costs)
    weights = sum(math.prod(tensor.shape) for tensor in stored_tensors(base).values())
    project(quantization, stages, weights, work)


def unpacked(source: Path, work: Path) -> Path:
    """convert_hf_to_gguf.py in llama.cpp's folder, or in the archive that has it."""
    if source.is_dir():
        return source / "convert_hf_to_gguf.py"
    with tarfile.open(source) as files:
        wanted = [m for m in files if m.name.endswith(".py") and "/vendor/llama.cpp/" in m.name]
        files.extractall(work / "llama.cpp", wanted, filter="data")
    return next((work / "llama.cpp").glob("*/vendor/llama.cpp/convert_hf_to_gguf.py"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("llama_cpp", type=Path, nargs="?", default=os.environ.get("LLAMA_CPP_SDIST"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=list(BITS))
    parser.add_argument("--times", type=int, default=1, help="repeat the model's layers")
    parser.add_argument("--keep-dtype", action="store_true", help="do not cast the model to bf16")
    arguments = parser.parse_args()
    make_importable()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        base = work / "base"
        # A process begins with the peak memory of the one that starts it: this one has to stay small.
        measured(side("base", arguments.model, base, arguments.times, int(arguments.keep_dtype)))
        write_adapter(base, work / "adapter")
        converter = unpacked(Path(arguments.llama_cpp), work)
        for quantization in [arguments.only] if arguments.only else BITS:
            compare(base, converter, quantization, arguments.rounds, work)


def run_side(name: str, arguments: list[Any]) -> None:
    if name == "ours":
        *paths, quantization, stages, verified = arguments
        ours(*map(Path, paths), quantization, Path(stages), verified == "True")
    elif name == "base":
        model, folder, times, keep_dtype = arguments
        write_base(Path(model), Path(folder), int(times), keep_dtype == "1")
    else:
        {"merge": merge, "quantise": quantise}[name](*map(Path, arguments))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--side"]:
        run_side(sys.argv[2], sys.argv[3:])
    else:
        main()
