"""From a base and an adapter to one GGUF file that has been verified to be the trained model."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import gguf
from gguf import GGMLQuantizationType as QuantType

from ...config.quantizations import PLAIN
from ...errors import DiskFullError, GgufExportError
from ...events import Report, ShouldStop, never_stop, no_report
from ...files.atomic_json import disk_full, is_disk_full
from ...files.new_name import place_file
from ...models.known_config import Config
from ...next_step import then
from ...untrusted import quoted, shown_path
from ..merged.merge import Floats, MergedWeights
from ..stage_progress import StageProgress
from ..tokenizer.gguf_tokenizer import GgufTokenizer, gguf_tokenizer
from .architectures import Architecture, architecture_of
from .check_weights import EMBEDDING, check_weights
from .model_config import model_config
from .rope import rope_of
from .tensor_plan import PlannedTensor, plan_tensors, with_kinds, write_header
from .writer import Quantize, quantize_with_numpy, write_data

SPARE_BYTES = 64 << 20  # what is left free on the disk
RULES_BY_NAME = re.compile("(phi|modern)-?(3|bert)", re.IGNORECASE)
"""Parts of a name for which llama.cpp treats special tokens otherwise, whatever the tokenizer is."""


@dataclass(frozen=True)
class GgufRequest:
    """What is exported, and where to.

    Args:
        base: folder of the base model, unquantised.
        adapter: folder of the LoRA adapter, or None.
        name: the model's name in the file.
        quantization: a known one, in lower case.
        target: the file to write; its folder exists, and the file does not.
        part: where it is written until it is whole, on the same disk.
        imatrix: by the names of the base's weights, how much each column counts, (columns,), for K-quants.
        threads: cores to use.
    """

    base: Path
    adapter: Path | None
    name: str
    quantization: str
    target: Path
    part: Path
    imatrix: Mapping[str, Floats]
    threads: int

    @property
    def tokenizer_folder(self) -> Path:
        """The adapter's own tokenizer if it has one: it has the chat template of the training."""
        own = self.adapter is not None and (self.adapter / "tokenizer.json").is_file()
        return self.adapter if own and self.adapter else self.base


@dataclass(frozen=True)
class GgufExport:
    """What was written."""

    path: Path
    bytes: int
    tokenizer: GgufTokenizer


@dataclass(frozen=True)
class UnverifiedGguf:
    """A file that is complete but does not have its name yet, and what it was made from.

    Args:
        weights: base + adapter.
    """

    path: Path
    planned: list[PlannedTensor]
    weights: MergedWeights


def export_gguf(
    request: GgufRequest,
    verify: Callable[[UnverifiedGguf], object],
    report: Report = no_report,
    should_stop: ShouldStop = never_stop,
) -> GgufExport:
    """Write the file aside, have it verified, and only then give it its name.

    Args:
        verify: raises if the file is not the model.

    Raises:
        GgufExportError: the model cannot be a GGUF, or the file is not the model.
        OutputTakenError: there is something at `target` now; the file is beside it.
        DiskFullError: there is no space.
        TrainingAbortedError: `should_stop` said so. In these two cases nothing of the file stays.
    """
    config = model_config(request.base)
    architecture = architecture_of(config)
    weights = MergedWeights(request.base, request.adapter)
    check_weights(weights, config)
    rows = weights.tensors[EMBEDDING].shape[0]
    tokenizer = gguf_tokenizer(request.tokenizer_folder, rows, request.base)
    try:
        planned, quantize = _plan(request, weights, config, architecture, tokenizer)
        _require_space(request.target, planned)
        starts = write_header(
            request.part,
            architecture.name,
            planned,
            partial(_metadata, request, config, architecture, tokenizer, _file_type(request.quantization)),
        )
        total = sum(tensor.rows * tensor.columns * 4 for tensor in planned)
        progress = StageProgress(
            "writing", f"writing {request.quantization}", len(planned), total, report, should_stop
        )
        write_data(request.part, planned, starts, weights, quantize, progress.step, request.threads)
        verify(UnverifiedGguf(request.part, planned, weights))
        size = request.part.stat().st_size
        place_file(request.part, request.target)
    except OSError as error:
        if is_disk_full(error):
            raise disk_full(request.target, error) from error
        raise
    finally:
        for leftover in part_files(request.part):
            leftover.unlink(missing_ok=True)
    return GgufExport(request.target, size, tokenizer)


def part_files(part: Path) -> list[Path]:
    """The files that a killed export may have left behind."""
    return [part, _types_file(part)]


def _types_file(part: Path) -> Path:
    return part.with_name(f"{part.name}.types")


def _plan(
    request: GgufRequest,
    weights: MergedWeights,
    config: Config,
    architecture: Architecture,
    tokenizer: GgufTokenizer,
) -> tuple[list[PlannedTensor], Quantize]:
    if request.quantization in PLAIN:
        planned = plan_tensors(weights, config, architecture, QuantType[request.quantization.upper()])
        return planned, quantize_with_numpy
    from .llama_cpp import LlamaCpp

    llama_cpp = LlamaCpp()
    planned = plan_tensors(weights, config, architecture, QuantType.F16)
    if any(tensor.kind is QuantType.MXFP4 for tensor in planned):
        raise GgufExportError(
            f"The base's experts are stored in 4 bits (MXFP4) and kept so; llama.cpp makes no "
            f"{request.quantization} of such a model.",
            hint="Export as q8_0: this is about the rest of the model, which is small.",
            next=then("ask_again", quantization="q8_0"),
        )
    header = _types_file(request.part)
    metadata = partial(_metadata, request, config, architecture, tokenizer, _file_type("f16"))
    os.truncate(header, write_header(header, architecture.name, planned, metadata)[-1])
    planned = with_kinds(planned, llama_cpp.tensor_types(header, request.quantization))
    header.unlink()
    return planned, partial(llama_cpp.quantize_rows, imatrix=request.imatrix)


def _metadata(
    request: GgufRequest,
    config: Config,
    architecture: Architecture,
    tokenizer: GgufTokenizer,
    file_type: gguf.LlamaFileType,
    writer: gguf.GGUFWriter,
) -> None:
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(general_name(request.name, tokenizer.name_part))
    writer.add_file_type(file_type)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    architecture.write(writer, config, rope_of(config))
    tokenizer.write(writer)


def general_name(name: str, part: str | None) -> str:
    """The model's name, with the part by which llama.cpp knows the tokenizer's rules, and no other."""
    neutral = RULES_BY_NAME.sub(r"\1_\2", name)
    return f"{neutral} {part}" if part else neutral


def _file_type(quantization: str) -> gguf.LlamaFileType:
    return gguf.LlamaFileType["ALL_F32" if quantization == "f32" else f"MOSTLY_{quantization.upper()}"]


def _require_space(target: Path, planned: list[PlannedTensor]) -> None:
    needed = sum(tensor.nbytes for tensor in planned) + SPARE_BYTES
    free = shutil.disk_usage(target.parent).free
    if free < needed:
        raise DiskFullError(
            f"{quoted(target.name)} needs {needed / 1e9:.1f} GB on the disk of {shown_path(target.parent)}; "
            f"{free / 1e9:.1f} GB are free.",
            hint="Free some space, use a smaller quantization, or set output to another disk.",
        )
