"""Exported files beside what llama.cpp's own converter, quantiser and inference make of the same model."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from small_models import FAMILIES, FUSED, write_adapter, write_mxfp4_model, write_small_model

from backpropagate.training.export.gguf.export import GgufRequest, UnverifiedGguf, export_gguf
from backpropagate.training.export.gguf.reader import read_gguf_header
from backpropagate.training.export.merged.safetensors import write_merged
from backpropagate.training.export.reference_model import Reference
from backpropagate.training.export.verify.logits import verify_logits
from backpropagate.training.export.verify.tensors import verify_tensors

REFERENCE = Path(__file__).parents[2] / "support" / "llama_cpp_reference.py"
PLAIN = ["f32", "f16", "bf16", "q8_0"]
QUANTISED = ["q4_k_m", "q5_k_m", "q6_k", "q4_0", "q3_k_m", "q2_k", "iq4_xs"]
QUICK = ("llama", "mistral", "qwen2", "qwen3", "smollm3", "gemma2", "gemma3_text", "phi3", "qwen3_moe")
OF_THE_FILE = {"general.name", "general.size_label", "general.file_type"}


def each(families: Iterable[str]) -> list[Any]:
    """The families, those that fewer people use for the night."""
    night = (pytest.mark.slow, pytest.mark.nightly)
    return [pytest.param(one, marks=() if FAMILIES[one][0] in QUICK else night) for one in families]


def exported(base: Path, adapter: Path | None, quantization: str, folder: Path, verify: Any = None) -> Path:
    target = folder / f"ours-{quantization}.gguf"
    request = GgufRequest(base, adapter, "small", quantization, target, folder / "part", {}, threads=2)
    export_gguf(request, verify or (lambda file: verify_tensors(file, threads=2)))
    return target


def tensors(path: Path) -> dict[str, tuple[int, bytes]]:
    return {t.name: (int(t.tensor_type), t.data.tobytes()) for t in gguf.GGUFReader(path).tensors}


def assert_same_tensors(ours: Path, theirs: Path) -> None:
    """Byte for byte; exponentials, of which torch does not round all correctly, to their last bit."""
    found, expected = tensors(ours), tensors(theirs)
    for name in [name for name in expected if name.endswith(".ssm_a")]:
        one, other = (np.frombuffer(values.pop(name)[1], np.float32) for values in (found, expected))
        assert np.allclose(one, other, rtol=2**-23, atol=0)
    assert found == expected


@pytest.fixture(scope="session")
def convert(llama_cpp_source: Path) -> Iterator[Callable[[Path, Path], None]]:
    """llama.cpp's own converter: writes FOLDER as a file of each plain type, named after PREFIX."""
    command = [sys.executable, str(REFERENCE), str(llama_cpp_source), *PLAIN]
    quiet = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, text=True, **quiet) as converter:

        def run(folder: Path, prefix: Path) -> None:
            assert converter.stdin and converter.stdout
            print(folder, prefix, sep="\t", file=converter.stdin, flush=True)
            assert (said := converter.stdout.readline().strip()) == "done", said

        yield run


@pytest.mark.parametrize("family", each(FAMILIES))
def test_the_file_equals_what_the_converter_makes_of_the_merged_model(
    convert: Callable[[Path, Path], None], tiny_model: Path, tmp_path: Path, family: str
) -> None:
    base = write_small_model(family, tmp_path / "base", tiny_model)
    adapter = write_adapter(base, tmp_path / "adapter")
    merged = tmp_path / "merged"
    write_merged(base, adapter, merged, "")
    convert(merged, tmp_path / "ref")
    for quantization in PLAIN:
        theirs = tmp_path / f"ref-{quantization}.gguf"
        ours = exported(base, adapter, quantization, tmp_path)
        assert_same_tensors(ours, theirs)
        metadata = read_gguf_header(ours).metadata
        for key, value in read_gguf_header(theirs).metadata.items():
            assert key in OF_THE_FILE or metadata[key] == value, key


@pytest.mark.slow
def test_four_bit_experts_are_those_that_the_converter_writes_and_llama_cpp_computes_with_them(
    llama_cpp: None, convert: Callable[[Path, Path], None], tiny_model: Path, tmp_path: Path
) -> None:
    base = write_mxfp4_model(tmp_path / "base", tiny_model)
    convert(base, tmp_path / "ref")
    for quantization in PLAIN:
        ours = exported(base, None, quantization, tmp_path)
        assert tensors(ours) == tensors(tmp_path / f"ref-{quantization}.gguf")
    comparisons: list[Any] = []

    def verify(file: UnverifiedGguf) -> None:
        rows = [list(range(3, 60))]
        reference = Reference(base, None)
        comparisons.append(verify_logits(file, reference, rows, threads=2, on_row=lambda done: None))

    (tmp_path / "ours-f16.gguf").unlink()
    exported(base, None, "f16", tmp_path, verify)
    assert comparisons[0].divergence < 1e-3 and comparisons[0].agreement > 0.9


@pytest.mark.parametrize("family", each(family for family, (kind, _) in FAMILIES.items() if kind in FUSED))
def test_a_merged_model_with_fused_weights_is_the_one_that_peft_merges(
    tiny_model: Path, tmp_path: Path, family: str
) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = write_small_model(family, tmp_path / "base", tiny_model)
    adapter = write_adapter(base, tmp_path / "adapter")
    write_merged(base, adapter, tmp_path / "merged", "")
    load: Any = AutoModelForCausalLM.from_pretrained
    tuned: Any = PeftModel.from_pretrained(load(base, dtype=torch.float32), str(adapter))
    expected = tuned.merge_and_unload().state_dict()
    found = load(tmp_path / "merged", dtype=torch.float32).state_dict()
    assert expected.keys() == found.keys()
    for name, weight in expected.items():
        assert torch.allclose(found[name], weight, atol=1e-5), name


@pytest.mark.parametrize("family", each(FAMILIES))
def test_llama_cpp_computes_from_the_file_what_transformers_computes(
    llama_cpp: None, tiny_model: Path, tmp_path: Path, family: str
) -> None:
    base = write_small_model(family, tmp_path / "base", tiny_model)
    adapter = write_adapter(base, tmp_path / "adapter")
    generator = np.random.default_rng(0)
    rows = [generator.integers(3, 250, length).tolist() for length in (100, 40, 7)]
    comparisons: list[Any] = []

    def verify(file: UnverifiedGguf) -> None:
        verify_tensors(file, threads=2)
        reference = Reference(base, adapter)
        comparisons.append(verify_logits(file, reference, rows, threads=2, on_row=lambda done: None))

    # Rounded to f16, Gemma 4 chooses another expert for some tokens.
    exported(base, adapter, "f32" if family == "gemma4 26b" else "f16", tmp_path, verify)
    assert (
        comparisons[0].tokens == 147 and comparisons[0].divergence < 1e-4 and comparisons[0].agreement > 0.95
    )


@pytest.mark.parametrize("quantization", QUANTISED)
def test_quantised_tensors_equal_those_of_llama_cpps_own_quantiser_on_our_f16(
    llama_cpp: None, tiny_model: Path, tmp_path: Path, quantization: str
) -> None:
    import llama_cpp as library

    sizes = {"hidden_size": 256, "intermediate_size": 512}
    base = write_small_model("llama", tmp_path / "base", tiny_model, **sizes)
    adapter = write_adapter(base, tmp_path / "adapter")
    f16 = exported(base, adapter, "f16", tmp_path)
    theirs = tmp_path / "theirs.gguf"
    parameters = library.llama_model_quantize_default_params()
    parameters.ftype = getattr(library, f"LLAMA_FTYPE_MOSTLY_{quantization.upper()}")
    paths = str(f16).encode(), str(theirs).encode()
    assert library.llama_model_quantize(*paths, ctypes.byref(parameters)) == 0
    assert tensors(exported(base, adapter, quantization, tmp_path)) == tensors(theirs)
