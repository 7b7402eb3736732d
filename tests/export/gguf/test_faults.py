"""What cannot be a GGUF is refused with its reason, and nothing half-written stays, whatever happens."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_lora import build_adapter, build_base, change_json
from waiting import wait_until

from backpropagate.training.config import quantizations
from backpropagate.training.errors import (
    BackpropagateError,
    DiskFullError,
    InputError,
    MissingExtraError,
    TrainingAbortedError,
)
from backpropagate.training.export.gguf import export as gguf_export
from backpropagate.training.export.gguf import writer as gguf_file

Export = Callable[..., dict[str, Any]]
INPUT = "INPUT_VALIDATION_FAILED"
GGUF, EXPORT, MODEL = "RUNTIME_GGUF_EXPORT_FAILED", "RUNTIME_EXPORT_FAILED", "DEP_MODEL_LOAD_FAILED"


@pytest.fixture
def base(tiny_model: Path, tmp_path: Path) -> Path:
    return build_base(tmp_path / "base", tiny_model)


@pytest.fixture
def adapter(base: Path, tmp_path: Path) -> Path:
    return build_adapter(tmp_path / "adapter", base)


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """A folder of its own for the file, so that anything left behind is seen."""
    folder = tmp_path / "output"
    folder.mkdir()
    return folder


@pytest.fixture
def refused(export: Export, output: Path) -> Callable[..., str]:
    """Exports, and returns the refusal with its hint; nothing may have been left behind."""

    def attempt(
        base: Path, adapter: Path | None, code: str = GGUF, quantization: str = "f16", **arguments: Any
    ) -> str:
        with pytest.raises(BackpropagateError) as caught:
            export(base, adapter, quantization, output=str(output / "model.gguf"), **arguments)
        assert not list(output.iterdir())
        assert caught.value.code == code, caught.value.sentence()
        return caught.value.sentence()

    return attempt


def edit(path: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    """Rewrite a safetensors file."""
    save_file({name: values.contiguous() for name, values in change(load_file(path)).items()}, path)


# --- The base. ---
@pytest.mark.parametrize("family", ["gpt2", "olmoe"])
def test_an_unknown_family_is_refused_by_its_name(
    family: str, base: Path, adapter: Path, refused: Callable[..., str]
) -> None:
    change_json(base / "config.json", model_type=family)
    assert f"'{family}'" in refused(base, adapter) and "Supported: llama" in refused(base, adapter)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"model_type": "qwen2", "use_sliding_window": True}, "has no sliding window in qwen2 models"),
        (
            {"model_type": "smollm3", "no_rope_layer_interval": 3},
            "expects no RoPE on every 4th SmolLM3 layer; this smollm3 model differs",
        ),
        ({"rope_parameters": {"rope_type": "dynamic", "factor": 2.0}}, "'dynamic'"),
        ({"hidden_act": "relu"}, "'relu'"),
        ({"quantization_config": {"load_in_4bit": True}}, "already quantised"),
    ],
)
def test_a_config_that_llama_cpp_would_compute_otherwise_is_refused(
    config: dict[str, Any], words: str, base: Path, adapter: Path, refused: Callable[..., str]
) -> None:
    change_json(base / "config.json", **config)
    assert words in refused(base, adapter)


def test_a_smollm3_with_positions_in_other_layers_is_refused(
    base: Path, adapter: Path, refused: Callable[..., str]
) -> None:
    change_json(base / "config.json", model_type="smollm3", no_rope_layers=[0, 1])
    assert "smollm3" in refused(base, adapter)


def test_a_truncated_missing_or_foreign_file_of_weights_is_refused(
    base: Path, adapter: Path, refused: Callable[..., str]
) -> None:
    for folder, name in ((base, "model.safetensors"), (adapter, "adapter_model.safetensors")):
        whole = (folder / name).read_bytes()
        for broken, words in (
            (whole[:-100], "truncated at"),
            (b"\xff" * 100, "not a safetensors file"),
            ((40).to_bytes(8, "little") + b"[1, 2, 3]" + b" " * 40, "not a safetensors file"),
            (b"", "not a safetensors file"),
        ):
            (folder / name).write_bytes(broken)
            assert words in refused(base, adapter, MODEL)
        (folder / name).write_bytes(whole)


def test_missing_weights_are_refused(base: Path, adapter: Path, refused: Callable[..., str]) -> None:
    (adapter / "adapter_model.safetensors").unlink()
    assert "adapter_model.safetensors does not exist" in refused(base, adapter, EXPORT)
    (base / "model.safetensors").unlink()
    assert "lacks weights" in refused(base, None, INPUT)


def test_a_missing_shard_is_named(tiny_model: Path, tmp_path: Path, refused: Callable[..., str]) -> None:
    base = build_base(tmp_path / "sharded", tiny_model, shard="30KB")
    shard = sorted(base.glob("model-*.safetensors"))[1]
    shard.unlink()
    assert f"lacks {shard.name}" in refused(base, None, INPUT)


@pytest.mark.parametrize(
    "name",
    [
        "model.layers.1.mlp.up_proj.weight",
        "model.layers.0.input_layernorm.weight",
        "model.norm.weight",
        "model.embed_tokens.weight",
        "lm_head.weight",
    ],
)
def test_a_base_without_one_of_its_weights_is_refused(
    name: str, base: Path, refused: Callable[..., str]
) -> None:
    edit(base / "model.safetensors", lambda tensors: {n: v for n, v in tensors.items() if n != name})
    assert name in refused(base, None)


def test_a_base_with_fewer_or_more_layers_than_it_says_is_refused(
    base: Path, refused: Callable[..., str]
) -> None:
    change_json(base / "config.json", num_hidden_layers=3)
    assert "model.layers.2." in refused(base, None)
    change_json(base / "config.json", num_hidden_layers=1)
    assert "model.layers.1." in refused(base, None)


def test_a_weight_of_another_shape_than_the_config_says_is_refused(
    base: Path, refused: Callable[..., str]
) -> None:
    change_json(base / "config.json", vocab_size=9999)
    assert "9999" in refused(base, None)


def test_a_base_in_whole_numbers_is_refused(base: Path, adapter: Path, refused: Callable[..., str]) -> None:
    name = "model.layers.0.mlp.up_proj.weight"
    edit(base / "model.safetensors", lambda tensors: tensors | {name: tensors[name].to(torch.uint8)})
    said = refused(base, adapter, EXPORT)
    assert name in said and "U8" in said and "unquantised" in said


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("quantization", ["f32", "bf16", "q8_0", "q4_k_m"])
def test_weights_that_are_not_finite_are_refused_by_name(
    quantization: str, value: float, base: Path, refused: Callable[..., str]
) -> None:
    name = "model.layers.1.self_attn.o_proj.weight"
    edit(base / "model.safetensors", lambda t: t | {name: t[name].index_fill(0, torch.tensor(7), value)})
    if quantization == "q4_k_m":
        pytest.importorskip("llama_cpp")
    said = refused(base, None, quantization=quantization)
    assert name in said and "not finite" in said


@pytest.mark.parametrize(
    ("quantization", "value"), [("f16", 66_000.0), ("bf16", 3.4e38), ("q8_0", 1e7), ("q4_k_m", 66_000.0)]
)
def test_weights_that_are_too_large_for_the_type_are_refused_by_name(
    quantization: str, value: float, base: Path, refused: Callable[..., str]
) -> None:
    name = "model.layers.1.self_attn.o_proj.weight"
    edit(base / "model.safetensors", lambda t: t | {name: t[name].index_fill(0, torch.tensor(7), value)})
    if quantization == "q4_k_m":
        pytest.importorskip("llama_cpp")
    said = refused(base, None, quantization=quantization)
    assert name in said and "cannot represent" in said


# --- The adapter. ---
@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"use_dora": True}, "DoRA"),
        ({"modules_to_save": ["lm_head"]}, "whole modules"),
        ({"bias": "lora_only"}, "biases"),
        ({"rank_pattern": {"q_proj": 2}}, "ranks that differ"),
        ({"alpha_pattern": {"q_proj": 2}}, "scales that differ"),
        ({"target_modules": ["q_proj", "embed_tokens"]}, "embed_tokens"),
    ],
)
def test_what_is_more_than_plain_lora_is_refused(
    config: dict[str, Any], words: str, base: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    assert words in refused(base, build_adapter(tmp_path / "other", base, **config), EXPORT)


@pytest.mark.parametrize("stored", [False, True])
def test_lora_on_a_tied_head_is_refused_with_what_to_do(
    stored: bool, tiny_model: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    base = build_base(tmp_path / "untied", tiny_model)
    adapter = build_adapter(tmp_path / "head", base, target_modules=["q_proj", "lm_head"])
    change_json(base / "config.json", tie_word_embeddings=True)
    if not stored:
        edit(base / "model.safetensors", lambda t: {n: v for n, v in t.items() if n != "lm_head.weight"})
    said = refused(base, adapter, GGUF if stored else EXPORT)
    assert "lm_head" in said and "tied" in said


def test_an_adapter_of_another_base_is_refused(
    base: Path, adapter: Path, refused: Callable[..., str]
) -> None:
    weights = adapter / "adapter_model.safetensors"
    before = load_file(weights)
    save_file({name.replace("layers.1", "layers.7"): values for name, values in before.items()}, weights)
    assert "layers.7" in refused(base, adapter, EXPORT)
    widened = {n: torch.cat([v, v], 1) if "lora_A" in n else v for n, v in before.items()}
    save_file(widened, weights)
    assert "was trained on another base model" in refused(base, adapter, EXPORT)


def test_an_adapter_with_unknown_lone_or_broken_matrices_is_refused(
    base: Path, adapter: Path, refused: Callable[..., str]
) -> None:
    weights = adapter / "adapter_model.safetensors"
    before = load_file(weights)
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_{}.weight"
    save_file(before | {"base_model.model.surprise": torch.ones(2)}, weights)
    assert "surprise" in refused(base, adapter, EXPORT)
    save_file({n: v for n, v in before.items() if n != name.format("B")}, weights)
    assert "without a lora_B" in refused(base, adapter, EXPORT)
    save_file(before | {name.format("A"): before[name.format("A")][:2].contiguous()}, weights)
    assert "without a lora_B of the same rank" in refused(base, adapter, EXPORT)
    save_file(before | {name.format("B"): before[name.format("B")] * torch.nan}, weights)
    assert "not finite" in refused(base, adapter)


# --- What is asked. ---
def test_a_k_quant_without_llama_cpp_is_refused_before_there_is_a_run(
    base: Path, home: Path, export: Export, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantizations, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError) as caught:
        export(base, None, "q4_k_m")
    assert 'pip install "backpropagate-mcp[export]"' in str(caught.value.hint)
    assert "q8_0" in str(caught.value.hint) and not (home / "runs").exists()


@pytest.mark.parametrize(
    ("quantization", "arguments", "words"),
    [
        ("q4_km", {}, "Did you mean q4_k_m"),
        ("quantum", {}, "Known: f32, f16"),
        ("q8_0", {"imatrix": True}, "q8_0 does not use an importance matrix"),
        ("iq2_xxs", {}, "imatrix=true"),
        ("q4_k_m", {"imatrix": True}, "rows of a training run"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused_before_there_is_a_run(
    quantization: str,
    arguments: dict[str, Any],
    words: str,
    base: Path,
    home: Path,
    export: Export,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(quantizations, "find_spec", lambda name: object())
    with pytest.raises(InputError) as caught:
        export(base, None, quantization, **arguments)
    assert words in caught.value.sentence() and not (home / "runs").exists()


def test_a_file_that_is_there_already_is_not_touched(base: Path, export: Export, output: Path) -> None:
    target = output / "base-q8_0.gguf"
    target.write_bytes(b"precious")
    for named in (target, output):  # the file itself, or the folder in which it would get its own name
        with pytest.raises(InputError, match="already exists"):
            export(base, None, "q8_0", output=str(named))
    assert target.read_bytes() == b"precious" and list(output.iterdir()) == [target]


@pytest.mark.skipif(sys.platform == "win32", reason="a whole path is limited there")
def test_a_name_as_long_as_names_can_be_is_written(base: Path, export: Export, output: Path) -> None:
    target = output / ("n" * 250 + ".gguf")
    assert export(base, None, "q8_0", output=str(target))["path"] == str(target)
    assert list(output.iterdir()) == [target]


def test_a_file_that_appears_while_the_run_waits_is_not_touched(
    base: Path, export: Export, output: Path
) -> None:
    target = output / "mine.gguf"
    with pytest.raises(InputError, match="already exists"):
        export(base, None, "q8_0", output=str(target), meanwhile=lambda: target.write_bytes(b"precious"))
    assert target.read_bytes() == b"precious"


@pytest.mark.slow
def test_a_folder_gets_a_file_with_the_models_the_adapters_and_the_types_name(
    base: Path, adapter: Path, export: Export, output: Path
) -> None:
    result = export(base, None, "Q8-0", output=str(output))
    assert (
        result["path"] == str(output / "base-q8_0.gguf") and "compared with the base;" in result["proof"][0]
    )
    assert [path.name for path in output.iterdir()] == ["base-q8_0.gguf"]
    result = export(base, adapter, "q8_0", output=str(output))
    assert result["path"] == str(output / "base-adapter-q8_0.gguf")
    assert "compared with base + adapter;" in result["proof"][0]


# --- The disk. ---
def test_too_little_space_is_known_before_anything_is_written(
    base: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gguf_export.shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    said = refused(base, None, "RUNTIME_DISK_FULL", "q8_0")
    assert "needs 0.1 GB" in said and "0.0 GB are free" in said


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Mounts a disk of so many KiB."""
    disk = tmp_path / "small-disk"
    disk.mkdir()

    def mount(size: int) -> Path:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", str(disk)], check=True)
        return disk

    yield mount
    wait_until(
        lambda: (
            not disk.is_mount() or subprocess.run(["umount", str(disk)], capture_output=True).returncode == 0
        ),
        "the unmount",
    )


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="mounting a small disk takes root")
@pytest.mark.parametrize(("quantization", "size"), [("f32", 8), ("f32", 48), ("f32", 120), ("q4_k_m", 4)])
def test_a_disk_that_fills_up_leaves_nothing_half_written(
    quantization: str,
    size: int,
    base: Path,
    export: Export,
    small_disk: Callable[[int], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In the header, between two tensors, in the last tensor, and while llama.cpp is asked for the types."""
    if quantization == "q4_k_m":
        pytest.importorskip("llama_cpp")
    monkeypatch.setattr(gguf_export, "SPARE_BYTES", -(1 << 30))
    disk = small_disk(size)
    with pytest.raises(DiskFullError, match=str(disk)):
        export(base, None, quantization, output=str(disk / "model.gguf"))
    assert not list(disk.iterdir())


# --- The proof. ---
def test_one_wrong_block_is_found(
    base: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    right = gguf_export.quantize_with_numpy

    def one_wrong(values: Any, tensor: Any) -> bytes:
        data = right(values, tensor)
        return data[:-34] + data[-68:-34] if tensor.name == "blk.1.ffn_down.weight" else data

    monkeypatch.setattr(gguf_export, "quantize_with_numpy", one_wrong)
    assert "blk.1.ffn_down.weight differs from base + adapter" in refused(base, None, quantization="q8_0")


def test_two_swapped_tensors_are_found(
    base: Path, adapter: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    right = gguf_export.write_data

    def swapped(path: Path, planned: list[Any], starts: list[int], *others: Any) -> None:
        gate, up = (
            next(i for i, tensor in enumerate(planned) if tensor.name == f"blk.0.ffn_{name}.weight")
            for name in ("gate", "up")
        )
        moved = list(starts)
        moved[gate], moved[up] = starts[up], starts[gate]
        right(path, planned, moved, *others)

    monkeypatch.setattr(gguf_export, "write_data", swapped)
    assert "blk.0.ffn_" in refused(base, adapter)


def test_a_block_that_llama_cpp_quantised_wrongly_is_found(
    base: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("llama_cpp")
    from backpropagate.training.export.gguf.llama_cpp import LlamaCpp

    right = LlamaCpp.quantize_rows

    def wrong(library: LlamaCpp, values: Any, tensor: Any, imatrix: Any) -> bytes:
        changed = -values if tensor.name == "blk.1.ffn_up.weight" else values
        return right(library, changed, tensor, imatrix)

    monkeypatch.setattr(LlamaCpp, "quantize_rows", wrong)
    assert "blk.1.ffn_up.weight" in refused(base, None, quantization="q4_k_m")


# --- Stopping. ---
@pytest.mark.parametrize("stage", ["downloading", "writing", "proving"])
@pytest.mark.parametrize("quantization", ["q8_0", "q4_k_m"])
def test_cancelling_in_any_stage_leaves_nothing(
    quantization: str,
    stage: str,
    base: Path,
    adapter: Path,
    export: Export,
    output: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if quantization == "q4_k_m":
        pytest.importorskip("llama_cpp")
    monkeypatch.setattr(gguf_file, "MEMORY_BYTES", 1 << 16)
    with pytest.raises(TrainingAbortedError):
        export(base, adapter, quantization, stop_in=stage, output=str(output / "model.gguf"))
    assert not list(output.iterdir())
