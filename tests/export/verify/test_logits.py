"""What llama.cpp computes from a file is compared with the file's weights in Transformers."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rarer import with_rarer
from safetensors.torch import load_file, save_file
from small_models import write_adapter, write_small_model
from tiny_lora import build_base

from backpropagate.training.errors import GgufExportError
from backpropagate.training.export.gguf import export as gguf_export
from backpropagate.training.export.verify import tokenizer_parity, verify
from backpropagate.training.next_step import then

Export = Callable[..., dict[str, Any]]
WIDE = {"hidden_size": 256, "intermediate_size": 256}
QUANTIZATIONS = ("f32", "bf16", "q8_0", "q4_0", "q4_k_m", "iq4_xs")


@pytest.mark.nightly
@pytest.mark.parametrize(
    "family, quantizations",
    [("llama", QUANTIZATIONS), ("gemma3", ("q8_0", "q4_k_m"))],
    ids=["llama", "gemma3"],
)
@pytest.mark.slow
def test_a_right_file_is_kept_at_every_quantization_though_no_run_gives_any_rows(
    llama_cpp: None,
    family: str,
    quantizations: tuple[str, ...],
    export: Export,
    tiny_model: Path,
    tmp_path: Path,
) -> None:
    base = write_small_model(family, tmp_path / "base", tiny_model, **WIDE)
    adapter = write_adapter(base, tmp_path / "adapter")
    for quantization in quantizations:
        output = tmp_path / f"{quantization}.gguf"
        said = export(base, adapter, quantization, output=str(output))["proof"][-1]
        assert "Run in llama.cpp on" in said and "of 12 sample texts" in said and output.is_file()


def test_a_right_file_of_a_model_that_loses_much_by_rounding_is_kept(
    llama_cpp: None, export: Export, tiny_model: Path, tmp_path: Path
) -> None:
    base = build_base(tmp_path / "base", tiny_model, hidden_size=256, num_hidden_layers=4)
    weights = load_file(base / "model.safetensors")
    save_file(weights | {"lm_head.weight": weights["lm_head.weight"] * 4}, base / "model.safetensors")
    said = export(base, None, "q8_0", output=str(tmp_path / "model.gguf"))["proof"][-1]
    lost, of_program, rounding = map(float, re.findall(r"(?:KL to [\w ]+|explains) ([\d.e-]+\d)", said))
    assert lost > 0.02 and 0.5 < of_program / rounding < 2.0


@pytest.mark.parametrize("quantization", with_rarer(["q8_0", "q4_k_m"], ["f32", "bf16", "q4_0", "iq4_xs"]))
def test_a_file_that_is_another_model_to_llama_cpp_does_not_pass_as_a_bad_quantization(
    llama_cpp: None,
    quantization: str,
    export: Export,
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    base = write_small_model("llama", tmp_path / "base", tiny_model, **WIDE)
    right = gguf_export.rope_of
    monkeypatch.setattr(gguf_export, "rope_of", lambda config: replace(right(config), theta=7000.0))
    with pytest.raises(GgufExportError, match=r"llama\.cpp computes another model") as caught:
        export(base, None, quantization, output=str(tmp_path / "model.gguf"))
    assert caught.value.next == then("ask_again", format="merged")
    assert not (tmp_path / "model.gguf").exists()


@pytest.mark.parametrize("family", ["llama 3", "llama with bias, tied", "qwen2", "qwen3", "smollm3"])
def test_our_own_decoder_runs_the_file_where_llama_cpp_is_not_installed(
    family: str, export: Export, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _without_llama_cpp(monkeypatch)
    base = write_small_model(family, tmp_path / "base", tiny_model)
    adapter = write_adapter(base, tmp_path / "adapter")
    said = export(base, adapter, "q8_0", output=str(tmp_path / "right.gguf"))["proof"]
    assert "llama-cpp-python is not installed" in said[-2]
    assert "Run in our own decoder on" in said[-1] and "of 12 sample texts" in said[-1]
    right = gguf_export.rope_of
    monkeypatch.setattr(gguf_export, "rope_of", lambda config: replace(right(config), theta=7000.0))
    with pytest.raises(GgufExportError, match="our own decoder computes another model"):
        export(base, adapter, "q8_0", output=str(tmp_path / "wrong.gguf"))


def test_a_family_that_our_own_decoder_lacks_is_said_not_to_have_been_run(
    export: Export, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _without_llama_cpp(monkeypatch)
    base = write_small_model("gemma3", tmp_path / "base", tiny_model)
    said = export(base, None, "q8_0", output=str(tmp_path / "model.gguf"))["proof"]
    assert said[-1] == "Not run: our own decoder has no gemma3 models."


def _without_llama_cpp(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "find_spec", lambda name: None)
    monkeypatch.setattr(tokenizer_parity, "llama_cpp_is_installed", lambda: False)
