"""Two given hosts beside two GPUs of one host: speed and losses of the same training.

    python benchmarks/gpu_given_hosts.py --size 0.5b --examples 32 --steps 40
    python benchmarks/gpu_given_hosts.py --size tiny --device cpu --examples 4 --steps 10     on the CPU

The hosts are this machine under two names, each with one of its GPUs and a device queue of its own, reached
by the stand-in for ssh of the tests. So it measures what the way over hosts costs, and no network. Model and
rows are those of `gpu_several.py`.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from workload import make_importable, table, write_random_model, write_rows

SIDES = {"1 GPU": {"gpus": 1}, "2 GPUs of one host": {"gpus": 2}, "2 hosts": {"on": "pair"}}


def set_up_hosts(folder: Path) -> None:
    """Two names for this machine, in a home of their own."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
    from fake_ssh import FakeHosts

    home = folder / "home"
    home.mkdir()
    (home / "clusters.toml").write_text('[pair]\nhosts = ["host-a", "host-b"]\n', encoding="utf-8")
    os.environ |= {"BACKPROPAGATE_HOME": str(home), "BACKPROPAGATE_RUNTIME_DIR": str(folder / "runtime")}
    make_importable()
    hosts = FakeHosts(folder / "hosts")
    for number, name in enumerate(("host-a", "host-b")):
        hosts.give(name, CUDA_VISIBLE_DEVICES=str(number))
    os.environ["PATH"] = f"{hosts.bin}{os.pathsep}{os.environ['PATH']}"


def measured(folder: Path, side: str, options: argparse.Namespace) -> dict[str, Any]:
    from backpropagate.training.config.settings import load_settings
    from backpropagate.training.events import Step
    from backpropagate.training.requests.train import train_spec
    from backpropagate.training.service import TrainingService

    service = TrainingService(load_settings())
    arguments = {
        "dataset": str(folder / "rows.jsonl"), "model": str(folder / "model"), "steps": options.steps,
        "batch_size": options.examples, "device": options.device, "held_out": 0.0, **SIDES[side],
    }  # fmt: skip
    view = ended(service, train_spec(arguments=arguments))
    if view.error or view.result is None:
        raise SystemExit(f"{side}: {view.status}: {view.error}\n{log_of(view.run_folder)}")
    events = service.store.find(view.run_id).events(0)[0]
    steps = [event for event in events if isinstance(event, Step)]
    rates = [step.tokens_per_s for step in steps[len(steps) // 2 :]]
    return {
        "side": side, "processes": view.result.gpus, "device": view.result.device_name,
        "tok/s": round(statistics.median(rates)), "losses": [step.loss for step in steps],
    }  # fmt: skip


def ended(service: Any, spec: Any) -> Any:
    import anyio

    async def run() -> Any:
        return await service.wait((await service.submit(spec)).run_id)

    return anyio.run(run)


def log_of(run_folder: str) -> str:
    return (Path(run_folder) / "worker.log").read_text("utf-8", errors="replace")[-4000:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--size", default="0.5b")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--examples", type=int, default=32, help="of an optimizer step")
    parser.add_argument("--steps", type=int, default=40)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_random_model(folder / "model", options.size)
        write_rows(folder / "rows.jsonl")
        set_up_hosts(folder)
        results = [measured(folder, side, options) for side in SIDES]
    first = results[0]
    rows = [
        [
            *map(str, list(result.values())[:-1]),
            f"{result['tok/s'] / first['tok/s']:.2f}",
            f"{max(abs(a - b) for a, b in zip(result['losses'], first['losses'], strict=True)):.1e}",
        ]
        for result in results
    ]
    print(table([[*list(first)[:-1], "times the first", "most that a loss differs"], *rows]))


if __name__ == "__main__":
    main()
