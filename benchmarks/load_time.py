"""How fast a model folder's weights come into the packed engine, and whether they are those of the files.

    python benchmarks/load_time.py MODEL_FOLDER                       on a CPU
    python benchmarks/load_time.py MODEL_FOLDER --device cuda         about two minutes for a 7B on an H100

The folder holds unquantised weights. They are loaded as they are and in 4 bits, in turn by one thread with a
buffer of 64 MiB and by as many as the engine takes; the files are in memory by then. At last the weights
are overwritten, loaded once more, and compared with what safetensors' own reader gives.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import torch
from torch import Tensor
from workload import make_importable, table

make_importable()

from safetensors import safe_open  # noqa: E402

from backpropagate.training.config.specs import LoraGroup  # noqa: E402
from backpropagate.training.engine.packed.decoder import PackedDecoder  # noqa: E402
from backpropagate.training.engine.packed.load_weights import destinations, load_weights  # noqa: E402
from backpropagate.training.engine.packed.nf4 import Nf4Weight  # noqa: E402
from backpropagate.training.engine.packed.open_decoder import load_decoder  # noqa: E402
from backpropagate.training.engine.packed.quantised_weights import nf4_weights  # noqa: E402
from backpropagate.training.models.safetensors_files import shards, stored_tensors  # noqa: E402
from backpropagate.training.models.text_model import name_in_model  # noqa: E402

ONE_THREAD = {"threads": 1, "piece_bytes": 64 << 20}


def row_of(form: str, model: Path, device: str, rounds: int) -> list[str]:
    decoder = load_decoder(model, LoraGroup(r=16), "bfloat16", device, in_4bit=form == "4 bits")
    gigabytes = sum(tensor.end - tensor.start for tensor in stored_tensors(model).values()) / 1e9
    one: list[float] = []
    several: list[float] = []
    for _ in range(rounds):
        one.append(gigabytes / seconds(decoder, model, ONE_THREAD))
        several.append(gigabytes / seconds(decoder, model, {}))
    rates = [f"{median(side):.2f} ({min(side):.2f} to {max(side):.2f})" for side in (one, several)]
    return [form, f"{gigabytes:.2f}", *rates, f"{median(several) / median(one):.2f}", verdict(decoder, model)]


def seconds(decoder: PackedDecoder, model: Path, how: dict[str, int]) -> float:
    """What it takes to fill a decoder."""
    wait_for(decoder.device)
    start = time.perf_counter()
    load_weights(decoder, model, **how)
    wait_for(decoder.device)
    return time.perf_counter() - start


def wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


@torch.no_grad()
def verdict(decoder: PackedDecoder, model: Path) -> str:
    """Whether the weights are those of the files; parameters of experts are looked at in no form."""
    places = destinations(decoder)
    quantised = {f"{name}.weight": weight for name, weight in nf4_weights(decoder).items()}
    for tensor in (*places.values(), *(part for each in quantised.values() for part in each.parts.values())):
        tensor.fill_(7)
    load_weights(decoder, model)
    equal, different = 0, list[str]()
    for name, tensor in read(decoder, model):
        if name in places or name in quantised:
            same = torch.equal(places[name], tensor) if name in places else is_of(quantised[name], tensor)
            equal += same
            different += [] if same else [name]
    return f"{len(different)} DIFFER, as {different[0]}" if different else f"{equal} tensors equal"


def read(decoder: PackedDecoder, model: Path) -> Iterator[tuple[str, Tensor]]:
    """The tensors of the files by safetensors' own reader, in the decoder's type and on its device."""
    for path in shards(model):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118
                tensor = file.get_tensor(name).to(decoder.device, decoder.dtype)
                yield name_in_model(name, decoder.config.place), tensor


def is_of(weight: Nf4Weight, matrix: Tensor) -> bool:
    """Whether a weight is a matrix, quantised."""
    parts = {name: torch.empty_like(part) for name, part in weight.parts.items()}
    Nf4Weight(weight.shape, parts).take(matrix)
    return all(torch.equal(parts[name], part) for name, part in weight.parts.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="folder of a model with unquantised weights")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    rows = [["weights", "GB of files", "one thread GB/s", "as the engine GB/s", "ratio", "compared"]]
    for form in ("16 bits", "4 bits"):
        rows.append(row_of(form, arguments.model, arguments.device, arguments.rounds))
        print(f"{form}: {rows[-1][-1]}", flush=True)
    print(table(rows))
    sys.exit(0 if all(row[-1].endswith("equal") and row[-1][0] != "0" for row in rows[1:]) else 1)


if __name__ == "__main__":
    main()
