"""A GGUF holds what PEFT's merge would give, in little memory, without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf_values import metadata, values
from numpy.typing import NDArray
from rarer import rarer, with_rarer
from safetensors.torch import save_file
from tiny_lora import build_adapter, build_base, change_json, merged_by_peft
from transformers import AutoTokenizer

Floats = NDArray[np.float32]
HEADS = {"q_proj": 4, "k_proj": 2}


def rounding(quantization: str, exact: Floats) -> Floats:
    """How far each value may be from the exact one."""
    size = np.abs(exact)
    if exact.ndim == 1:
        return size * 0 + 1e-6
    if quantization == "q8_0":
        block = size.reshape(-1, 32).max(axis=1, keepdims=True)
        return np.broadcast_to(block * (0.5 / 127 + 2**-11) + 1e-6, (len(block), 32)).reshape(exact.shape)
    return size * {"f32": 1e-6, "f16": 2**-11, "bf16": 2**-8}[quantization] + 1e-6


def assert_equals_pefts_merge(path: Path, base: Path, adapter: Path, heads: dict[str, int]) -> None:
    exact = {name: tensor.numpy() for name, tensor in merged_by_peft(base, adapter).items()}
    if json.loads((base / "config.json").read_text())["tie_word_embeddings"]:
        del exact["lm_head.weight"]
    found = values(path, heads)
    assert found.keys() == exact.keys()
    for name, tensor in exact.items():
        assert np.all(np.abs(found[name] - tensor) <= rounding(path.stem, tensor)), name


@pytest.mark.parametrize("quantization", with_rarer(["f32", "q8_0"], ["f16", "bf16"]))
def test_each_type_holds_pefts_merge_within_its_rounding(
    quantization: str, tiny_model: Path, tmp_path: Path, export: Callable[..., dict[str, Any]]
) -> None:
    base = build_base(tmp_path / "base", tiny_model)
    adapter = build_adapter(tmp_path / "adapter", base)
    target = tmp_path / f"{quantization}.gguf"
    result = export(base, adapter, quantization, output=str(target))
    assert result["path"] == str(target) and result["bytes"] == target.stat().st_size
    assert "21 of 21 tensors read back" in result["summary"]
    assert_equals_pefts_merge(target, base, adapter, HEADS)


@pytest.mark.parametrize(("name", "written"), [("g1", "g1.gguf"), rarer("g1.bin", "g1.bin"), rarer("", None)])
def test_a_file_without_a_suffix_gets_that_of_gguf_and_the_result_says_so(
    name: str, written: str | None, tiny_model: Path, tmp_path: Path, export: Callable[..., dict[str, Any]]
) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    result = export(build_base(tmp_path / "base", tiny_model), None, "f16", output=str(folder / name))
    (made,) = folder.iterdir()
    assert result["path"] == str(made) and made.name == (written or "base-f16.gguf")
    assert ("Named 'g1.gguf', since `output` had no suffix." in result["summary"]) == (name == "g1")


@pytest.mark.parametrize(
    ("family", "config", "lora"),
    [
        ("llama", {"tie_word_embeddings": True}, {}),
        ("llama", {}, {"use_rslora": True}),
        rarer("llama", {}, {"target_modules": ["q_proj", "down_proj"]}),
        ("llama", {}, {"target_modules": ["k_proj", "lm_head"]}),
        rarer("llama", {"attention_bias": True, "mlp_bias": True}, {}),
        rarer("llama", {"head_dim": 16}, {}),
        ("llama", {"vocab_size": 300}, {}),  # more rows than the tokenizer has tokens
        rarer("mistral", {"num_key_value_heads": 4}, {}),
        ("qwen2", {}, {}),  # biases on q, k and v
    ],
)
def test_every_form_of_model_and_adapter_holds_pefts_merge(
    family: str,
    config: dict[str, Any],
    lora: dict[str, Any],
    tiny_model: Path,
    tmp_path: Path,
    export: Callable[..., dict[str, Any]],
) -> None:
    base = build_base(tmp_path / "base", tiny_model, family, **config)
    adapter = build_adapter(tmp_path / "adapter", base, **lora)
    export(base, adapter, "f32", output=str(tmp_path / "f32.gguf"))
    num_kv_heads = config.get("num_key_value_heads", 2)
    heads = {"q_proj": 4, "k_proj": num_kv_heads} if family in {"llama", "mistral"} else {}
    assert_equals_pefts_merge(tmp_path / "f32.gguf", base, adapter, heads)


def test_tokens_that_the_training_added_are_in_the_file_and_unused_rows_are_named(
    tiny_model: Path, tmp_path: Path, export: Callable[..., dict[str, Any]]
) -> None:
    base = build_base(tmp_path / "base", tiny_model, vocab_size=272)
    adapter = build_adapter(tmp_path / "adapter", base)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.add_tokens(["<tool>", "<result>"], special_tokens=True)
    tokenizer.save_pretrained(adapter)
    path = Path(export(base, adapter, "q8_0")["path"])
    tokens = metadata(path)["tokenizer.ggml.tokens"]
    assert len(tokens) == 272 and tokens[258:260] == ["<tool>", "<result>"]
    assert len(set(tokens)) == 272
    assert values(path, HEADS)["model.embed_tokens.weight"].shape == (272, 32)


def test_a_model_without_an_adapter_is_exported_as_it_is_from_all_its_shards(
    tiny_model: Path, tmp_path: Path, export: Callable[..., dict[str, Any]]
) -> None:
    base = build_base(tmp_path / "base", tiny_model, shard="30KB")
    assert len(list(base.glob("*.safetensors"))) > 2
    adapter = build_adapter(tmp_path / "nothing", base)
    target = tmp_path / "f32.gguf"
    export(base, None, "f32", output=str(target))
    tensors = {name: tensor * 0 for name, tensor in _lora(adapter).items()}
    save_file(tensors, adapter / "adapter_model.safetensors")
    assert_equals_pefts_merge(target, base, adapter, HEADS)


def _lora(adapter: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(adapter / "adapter_model.safetensors")


def test_a_base_without_a_chat_template_is_exported_with_a_warning(
    tiny_model: Path, tmp_path: Path, export: Callable[..., dict[str, Any]]
) -> None:
    base = build_base(tmp_path / "base", tiny_model)
    (base / "chat_template.jinja").unlink()
    result = export(base, build_adapter(tmp_path / "adapter", base), "q8_0")
    assert "tokenizer.chat_template" not in metadata(Path(result["path"]))
    assert any("chat template" in warning and "Ollama" in warning for warning in result["warnings"])


ALONE = """
import json, resource, sys
from pathlib import Path
from backpropagate.training.export.gguf import export as gguf_export
from backpropagate.training.export.gguf import writer as gguf_file
from backpropagate.training.export.verify.tensors import verify_tensors
gguf_file.MEMORY_BYTES = 16 << 20
base, adapter, target, quantization = sys.argv[1:]
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
target = Path(target)
request = gguf_export.GgufRequest(
    Path(base), Path(adapter), "big", quantization, target, target.with_suffix(".part"), {}, 2
)
gguf_export.export_gguf(request, lambda file: verify_tensors(file, threads=2))
grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
print(json.dumps({"grown_mib": grown, "modules": sorted(sys.modules)}))
"""


def write_big(base: Path, tiny_model: Path, vocabulary: int) -> None:
    """One layer of `tiny_model` under an embedding of zeros that takes no space on the disk."""
    change_json(base / "config.json", vocab_size=vocabulary, tie_word_embeddings=True)
    name = "model.embed_tokens.weight"
    old = (base / "model.safetensors").read_bytes()
    length = int.from_bytes(old[:8], "little")
    header = json.loads(old[8 : 8 + length])
    header.pop("__metadata__", None)
    header.pop("lm_head.weight")
    size = vocabulary * header[name]["shape"][1] * 4
    end = len(old) - 8 - length
    header[name] = {
        "dtype": "F32",
        "shape": [vocabulary, header[name]["shape"][1]],
        "data_offsets": [end, end + size],
    }
    new = json.dumps(header).encode()
    with (base / "model.safetensors").open("wb") as file:
        file.write(len(new).to_bytes(8, "little") + new + old[8 + length :])
        file.truncate(8 + len(new) + end + size)


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss has another unit elsewhere")
@pytest.mark.slow
def test_memory_does_not_grow_with_the_model_and_torch_is_not_imported(
    tiny_model: Path, tmp_path: Path
) -> None:
    base = build_base(
        tmp_path / "base",
        tiny_model,
        hidden_size=8192,
        num_hidden_layers=1,
        intermediate_size=32,
        head_dim=32,
    )
    adapter = build_adapter(tmp_path / "adapter", base, target_modules=["q_proj"])
    write_big(base, tiny_model, 8192)
    done = subprocess.run(
        [sys.executable, "-c", ALONE, str(base), str(adapter), str(tmp_path / "big.gguf"), "q8_0"],
        capture_output=True,
        text=True,
        check=True,
    )
    told = json.loads(done.stdout)
    assert told["grown_mib"] < 100, "the model has 256 MiB"
    assert not {"torch", "transformers", "peft"} & set(told["modules"])
