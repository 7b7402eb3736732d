"""A model folder with the adapter merged into its weights, as safetensors.

The weights are streamed: each is read, merged in fp32 and rounded once to the base's own type, a block of
rows at a time, so memory does not grow with the model. Weights without an update are copied byte for byte.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ...errors import MergeExportError
from ...events import Report, ShouldStop, never_stop, no_report
from ...files.atomic_folder import require_space, write_new_folder
from ...models.safetensors_files import StoredTensor
from ...models.text_model import read_text_config
from ...untrusted import quoted, shown_path
from ..stage_progress import StageProgress
from .merge import Floats, MergedWeights, is_tied

SHARD_BYTES = 5_000_000_000
BLOCK_BYTES = 64 << 20  # of a block's values in fp32; its update takes as much again
TOO_LARGE = {"F16": 65520.0, "BF16": 255.5 / 128 * 2.0**127}
"""The smallest value that would be rounded to infinity."""
CONFIGS = ("config.json", "generation_config.json")
ADDITIONAL_TEMPLATES = "additional_chat_templates"
TOKENIZER = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "vocab.txt", "merges.txt", "tokenizer.model", "spiece.model", "chat_template.jinja"),
)


@dataclass
class Shard:
    """One file of weights."""

    tensors: dict[str, StoredTensor] = field(default_factory=dict[str, StoredTensor])

    @property
    def nbytes(self) -> int:
        return sum(_size(tensor) for tensor in self.tensors.values())


def write_merged(
    base: Path,
    adapter: Path | None,
    target: Path,
    card: str,
    report: Report = no_report,
    should_stop: ShouldStop = never_stop,
    *,
    writer: str = "",
    after_reading: Callable[[], object] = lambda: None,
) -> int:
    """Write the folder `target`, whole or not at all.

    Args:
        base: folder of the unquantised model; its weights' types are kept.
        adapter: a PEFT LoRA folder; None copies the model as it is.
        card: the content of README.md.
        should_stop: looked at after each block.
        writer: see `part_of`.
        after_reading: called before the folder gets its name; raises if a file was exchanged.

    Returns:
        The bytes of its weights.

    Raises:
        ExportError: the adapter is not a plain LoRA, is of another base, or cannot be merged completely.
        ModelLoadError: the base's files cannot be read.
        DiskFullError: it does not fit; checked before anything is written.
        OutputTakenError: there is something else at `target` now.
        TrainingAbortedError: it was stopped.
    """
    config = _config(base)
    weights = MergedWeights(base, adapter)
    _refuse_tied(weights, config)
    shards = list(split_into_shards(weights.tensors, SHARD_BYTES))
    total = sum(shard.nbytes for shard in shards)
    require_space(target, total)

    def fill(folder: Path) -> None:
        progress = StageProgress("writing", "merging", len(weights.tensors), total, report, should_stop)
        _write_shards(folder, shards, weights, progress)
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        copy_beside(base, CONFIGS[1:], folder)
        copy_tokenizer(base, adapter, folder)
        (folder / "README.md").write_text(card, encoding="utf-8", newline="\n")
        after_reading()

    write_new_folder(target, fill, writer)
    return total


def copy_tokenizer(base: Path, adapter: Path | None, folder: Path) -> None:
    """The tokenizer and chat template that the adapter was trained with; the base's if it has none."""
    trained_with = adapter is not None and (adapter / "tokenizer_config.json").is_file()
    source = adapter if adapter is not None and trained_with else base
    copy_beside(source, TOKENIZER, folder)
    for template in sorted((source / ADDITIONAL_TEMPLATES).glob("*.jinja")):
        (folder / ADDITIONAL_TEMPLATES).mkdir(exist_ok=True)
        shutil.copyfile(template, folder / ADDITIONAL_TEMPLATES / template.name)


def copy_beside(source: Path, names: tuple[str, ...], folder: Path) -> None:
    """Those of the named files that there are."""
    for name in names:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)


def _config(base: Path) -> dict[str, Any]:
    path = base / "config.json"
    try:
        config = read_text_config(base)
    except (OSError, ValueError, RecursionError) as error:
        raise MergeExportError(
            f"{shown_path(path)} cannot be read: {type(error).__name__}.", cause=error, untrusted=str(error)
        ) from error
    if config.get("quantization_config"):
        raise MergeExportError(
            f"The base model in {shown_path(base)} is quantised, so no adapter can be merged into it.",
            hint="Set base_model_name_or_path in adapter_config.json to the unquantised base model.",
        )
    return {name: value for name, value in config.items() if name != "_name_or_path"}


def _refuse_tied(weights: MergedWeights, config: dict[str, Any]) -> None:
    """A tied lm_head cannot change without the embedding, nor be stored separately."""
    name = next((name for name in weights.updates if name.endswith("lm_head.weight")), None)
    if name and is_tied(config):
        raise MergeExportError(
            f"The adapter changes {quoted(name)}, which is also the model's embedding (tie_word_embeddings).",
            hint="Train without lm_head among the target modules, or use the adapter with PEFT.",
        )


# --- The files of weights. ---
def split_into_shards(tensors: dict[str, StoredTensor], most: int) -> Iterator[Shard]:
    """All tensors in their order, in files of at most so many bytes (or of one tensor)."""
    shard = Shard()
    for name, tensor in tensors.items():
        if shard.tensors and shard.nbytes + _size(tensor) > most:
            yield shard
            shard = Shard()
        shard.tensors[name] = tensor
    yield shard


def _write_shards(folder: Path, shards: list[Shard], weights: MergedWeights, progress: StageProgress) -> None:
    count, done, number = len(shards), 0, 0
    weight_map: dict[str, str] = {}
    for index, shard in enumerate(shards, start=1):
        file_name = "model.safetensors" if count == 1 else f"model-{index:05}-of-{count:05}.safetensors"
        with (folder / file_name).open("wb") as file:
            file.write(_header(shard))
            for name, tensor in shard.tensors.items():
                for data in _data(name, tensor, weights):
                    file.write(data)
                    done += len(data)
                    progress.step(number, name, done)
                number += 1
        weight_map |= dict.fromkeys(shard.tensors, file_name)
    if count > 1:
        index_file = {"metadata": {"total_size": done}, "weight_map": dict(sorted(weight_map.items()))}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index_file, indent=2) + "\n")


def _header(shard: Shard) -> bytes:
    """8 bytes of length, then JSON of that length, padded so that the data is aligned."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    start = 0
    for name, tensor in shard.tensors.items():
        end = start + _size(tensor)
        header[name] = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [start, end]}
        start = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _data(name: str, tensor: StoredTensor, weights: MergedWeights) -> Iterator[bytes]:
    if name not in weights.updates:
        with tensor.path.open("rb") as file:
            yield from _copied(file, tensor)
        return
    rows = tensor.shape[0]
    step = max(1, BLOCK_BYTES // 4 // math.prod(tensor.shape[1:]))
    for start in range(0, rows, step):
        yield rounded(weights.rows(name, start, min(start + step, rows)), tensor.dtype, name)


def _copied(file: BinaryIO, tensor: StoredTensor) -> Iterator[bytes]:
    file.seek(tensor.start)
    left = _size(tensor)
    while left:
        data = file.read(min(left, BLOCK_BYTES))
        if not data:
            raise MergeExportError(
                f"{shown_path(tensor.path)} became shorter while it was read.",
                hint="Export again when no program writes to it.",
            )
        left -= len(data)
        yield data


def rounded(values: Floats, dtype: str, name: str) -> bytes:
    """fp32 values as a safetensors type, rounded to nearest, ties to even.

    Raises:
        MergeExportError: a value is not finite, or too large for the type.
    """
    largest = float(np.max(np.abs(values), initial=0.0))
    if not largest < TOO_LARGE.get(dtype, np.inf):
        raise MergeExportError(
            f"{quoted(name)} contains {largest:g} after the merge, which {dtype} cannot represent.",
            hint="The training diverged: train again with a lower learning_rate.",
        )
    if dtype == "BF16":  # the upper half of fp32
        bits = values.view(np.uint32)
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16).tobytes()
    kind = {"F64": np.float64, "F32": np.float32, "F16": np.float16}[dtype]
    return values.astype(kind, copy=False).tobytes()


def _size(tensor: StoredTensor) -> int:
    return tensor.end - tensor.start
