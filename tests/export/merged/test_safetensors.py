"""A merged folder is what PEFT's merge would give, whole, in little memory, or there is none."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from backpropagate.training.errors import (
    DiskFullError,
    ExportError,
    LoraExportError,
    MergeExportError,
    ModelLoadError,
    TrainingAbortedError,
)
from backpropagate.training.events import Event, Phase
from backpropagate.training.export.merged import safetensors as merged_folder
from backpropagate.training.export.merged.adapter import write_lora
from backpropagate.training.export.merged.safetensors import rounded, write_merged
from backpropagate.training.files.atomic_folder import part_of

LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
CARD = "---\nlibrary_name: transformers\n---\n# Merged\n"

Adapted = Callable[..., tuple[Path, Path]]


@pytest.fixture
def adapted(tiny_model: Path, tmp_path: Path) -> Adapted:
    """A random base of any type, and a PEFT adapter for it with numbers of which fp32 loses nothing."""

    def make(
        dtype: torch.dtype = torch.float32, *, tied: bool = False, shard: str = "5GB", **config: Any
    ) -> tuple[Path, Path]:
        base, adapter = tmp_path / "base", tmp_path / "adapter"
        shutil.copytree(tiny_model, base)
        (base / "model.safetensors").unlink()
        shape = AutoConfig.from_pretrained(tiny_model, tie_word_embeddings=tied)
        model = AutoModelForCausalLM.from_config(shape, dtype=dtype)
        model.save_pretrained(base, max_shard_size=shard)
        peft = get_peft_model(
            model, LoraConfig(**{"r": 4, "lora_alpha": 8, "target_modules": LINEAR} | config)
        )
        generator = torch.Generator().manual_seed(0)
        for name, values in peft.named_parameters():
            if "lora_" in name:
                values.data = torch.randint(-8, 9, values.shape, generator=generator).float() / 64
        peft.save_pretrained(adapter, save_embedding_layers=False)
        AutoTokenizer.from_pretrained(tiny_model).save_pretrained(adapter)
        return base, adapter

    return make


def merged_by_peft(base: Path, adapter: Path) -> dict[str, torch.Tensor]:
    from peft import PeftModel

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, local_files_only=True)
    return PeftModel.from_pretrained(model, adapter).merge_and_unload().state_dict()


def merge(base: Path, adapter: Path | None, target: Path, **options: Any) -> dict[str, torch.Tensor]:
    write_merged(base, adapter, target, CARD, **options)
    return {name: values for path in target.glob("*.safetensors") for name, values in load_file(path).items()}


@pytest.mark.parametrize("config", [{}, {"use_rslora": True}, {"target_modules": ["q_proj", "down_proj"]}])
def test_it_equals_pefts_merge_and_loads(config: dict[str, Any], adapted: Adapted, tmp_path: Path) -> None:
    base, adapter = adapted(**config)
    ours = merge(base, adapter, tmp_path / "merged")
    theirs = merged_by_peft(base, adapter)
    assert ours.keys() == theirs.keys()
    for name, values in ours.items():
        torch.testing.assert_close(values, theirs[name], rtol=1e-6, atol=1e-7)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", local_files_only=True)
    assert all(torch.equal(values, ours[name]) for name, values in model.state_dict().items())
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "merged", local_files_only=True)
    assert tokenizer.chat_template and (tmp_path / "merged" / "README.md").read_text() == CARD
    assert (tmp_path / "merged" / "generation_config.json").is_file()


def test_a_lora_on_the_experts_of_gemma_4_is_merged_as_peft_does(tiny_model: Path, tmp_path: Path) -> None:
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    shutil.copytree(tiny_model, base, ignore=shutil.ignore_patterns("*.safetensors", "config.json"))
    shape = AutoConfig.for_model(
        "gemma4_text", vocab_size=300, hidden_size=48, intermediate_size=80, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=16, global_head_dim=32,
        hidden_size_per_layer_input=0, enable_moe_block=True, num_experts=4, top_k_experts=2,
        moe_intermediate_size=32,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(shape, dtype=torch.float32)
    model.save_pretrained(base)
    experts = ["experts.gate_up_proj", "experts.down_proj"]
    lora = LoraConfig(r=4, lora_alpha=8, target_modules=LINEAR, target_parameters=experts)
    peft = get_peft_model(model, lora)
    for name, values in peft.named_parameters():
        if "lora_" in name:
            values.data.normal_(0, 0.1)
    peft.save_pretrained(adapter, save_embedding_layers=False)
    ours, before = merge(base, adapter, tmp_path / "merged"), load_file(base / "model.safetensors")
    theirs = merged_by_peft(base, adapter)
    for name, values in ours.items():
        torch.testing.assert_close(values, theirs[name], rtol=1e-5, atol=1e-6)
    changed = {name for name in ours if not torch.equal(ours[name], before[name])}
    assert {f"model.layers.1.{name}" for name in experts} <= changed


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_bases_type_is_kept_and_a_merged_weight_is_rounded_once(
    dtype: torch.dtype, adapted: Adapted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merged_folder, "BLOCK_BYTES", 1000)
    base, adapter = adapted(dtype)
    ours = merge(base, adapter, tmp_path / "merged")
    before, lora = load_file(base / "model.safetensors"), load_file(adapter / "adapter_model.safetensors")
    for name, values in ours.items():
        module = f"base_model.model.{name.removesuffix('.weight')}"
        expected = before[name].float()
        if f"{module}.lora_A.weight" in lora:
            expected = expected + 2.0 * lora[f"{module}.lora_B.weight"] @ lora[f"{module}.lora_A.weight"]
        assert values.dtype is dtype and torch.equal(values, expected.to(dtype)), name


def test_a_tied_head_stays_tied_and_is_not_stored_twice(adapted: Adapted, tmp_path: Path) -> None:
    base, adapter = adapted(tied=True)
    ours = merge(base, adapter, tmp_path / "merged")
    assert "lm_head.weight" not in ours
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", local_files_only=True)
    assert model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()


def test_large_models_are_written_in_shards_with_an_index(
    adapted: Adapted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merged_folder, "SHARD_BYTES", 20_000)
    base, adapter = adapted(shard="30KB")
    ours = merge(base, adapter, tmp_path / "merged")
    files = sorted(path.name for path in (tmp_path / "merged").glob("model-*.safetensors"))
    assert len(files) > 4 and files[0] == f"model-00001-of-{len(files):05}.safetensors"
    index = json.loads((tmp_path / "merged" / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"]) == set(ours) and set(index["weight_map"].values()) == set(files)
    theirs = merged_by_peft(base, adapter)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", local_files_only=True)
    for name, values in model.state_dict().items():
        torch.testing.assert_close(values, theirs[name], rtol=1e-6, atol=1e-7)


def test_without_an_adapter_the_model_is_copied(adapted: Adapted, tmp_path: Path) -> None:
    base, _ = adapted(torch.bfloat16)
    ours = merge(base, None, tmp_path / "copy")
    before = load_file(base / "model.safetensors")
    assert all(torch.equal(values, before[name]) for name, values in ours.items())


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"use_dora": True}, "DoRA"),
        ({"modules_to_save": ["lm_head"]}, "whole modules"),
        ({"bias": "lora_only"}, "biases"),
        ({"rank_pattern": {"q_proj": 2}}, "ranks that differ"),
        ({"target_modules": ["q_proj", "embed_tokens"]}, "cannot be merged"),
    ],
)
def test_what_is_more_than_plain_lora_is_refused(
    config: dict[str, Any], words: str, adapted: Adapted, tmp_path: Path
) -> None:
    base, adapter = adapted(**config)
    with pytest.raises(ExportError, match=words):
        merge(base, adapter, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_an_adapter_of_another_base_is_refused(adapted: Adapted, tmp_path: Path) -> None:
    base, adapter = adapted()
    tensors = load_file(adapter / "adapter_model.safetensors")
    renamed = {name.replace("layers.1", "layers.7"): values for name, values in tensors.items()}
    save_file(renamed, adapter / "adapter_model.safetensors")
    with pytest.raises(ExportError, match=r"layers\.7.*does not have"):
        merge(base, adapter, tmp_path / "merged")
    wider = {
        name: torch.cat([values, values], 1) if name.endswith("lora_A.weight") else values
        for name, values in tensors.items()
    }
    save_file(wider, adapter / "adapter_model.safetensors")
    with pytest.raises(ExportError, match="was trained on another base model"):
        merge(base, adapter, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_a_trained_head_that_is_tied_is_refused(adapted: Adapted, tmp_path: Path) -> None:
    base, adapter = adapted(target_modules=["q_proj", "lm_head"])
    assert merge(base, adapter, tmp_path / "untied")["lm_head.weight"].shape[1] == 32
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": True}))
    with pytest.raises(MergeExportError, match=r"lm_head\.weight"):
        merge(base, adapter, tmp_path / "tied")


def test_a_truncated_file_is_refused(adapted: Adapted, tmp_path: Path) -> None:
    base, adapter = adapted()
    weights = base / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-100])
    with pytest.raises(ModelLoadError, match="truncated at"):
        merge(base, adapter, tmp_path / "merged")
    weights.write_bytes(whole)
    lora = adapter / "adapter_model.safetensors"
    lora.write_bytes(lora.read_bytes()[:-100])
    with pytest.raises(ModelLoadError, match="truncated at"):
        merge(base, adapter, tmp_path / "merged")
    with pytest.raises(ModelLoadError, match="truncated at"):
        write_lora(base, adapter, tmp_path / "lora", CARD)
    assert not (tmp_path / "merged").exists() and not (tmp_path / "lora").exists()


def test_a_quantised_base_is_refused_with_what_to_do(adapted: Adapted, tmp_path: Path) -> None:
    base, adapter = adapted()
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "quantization_config": {"load_in_4bit": True}}))
    with pytest.raises(MergeExportError, match="quantised") as caught:
        merge(base, adapter, tmp_path / "merged")
    assert "unquantised base model" in str(caught.value.hint)


@pytest.mark.parametrize(("dtype", "value"), [("F16", 70_000.0), ("BF16", 3.4e38), ("F32", float("nan"))])
def test_values_that_the_type_cannot_hold_are_refused(dtype: str, value: float) -> None:
    import numpy as np

    with pytest.raises(MergeExportError, match="cannot represent"):
        rounded(np.array([1.0, value], np.float32), dtype, "a.weight")


def test_cancelling_between_two_blocks_leaves_nothing(
    adapted: Adapted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merged_folder, "BLOCK_BYTES", 1000)
    base, adapter = adapted()
    looks = iter([False] * 20)
    with pytest.raises(TrainingAbortedError):
        merge(base, adapter, tmp_path / "merged", should_stop=lambda: next(looks, True))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "base"]


def test_progress_tells_the_tensor_the_speed_and_the_time_left(adapted: Adapted, tmp_path: Path) -> None:
    base, adapter = adapted()
    told: list[Phase] = []

    def report(event: Event) -> None:
        assert isinstance(event, Phase) and event.phase == "writing"
        told.append(event)

    merge(base, adapter, tmp_path / "merged", report=report)
    assert told[-1].fraction == 1.0
    assert "tensor 21 of 21" in told[-1].message and "MB/s" in told[-1].message


def test_a_full_disk_is_known_before_anything_is_written(
    adapted: Adapted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, adapter = adapted()
    monkeypatch.setattr(
        "backpropagate.training.files.atomic_folder.shutil.disk_usage",
        lambda path: SimpleNamespace(free=1000),
    )
    with pytest.raises(DiskFullError, match=r"needs 0\.00 GB"):
        merge(base, adapter, tmp_path / "merged")
    assert not part_of(tmp_path / "merged").exists()


def test_an_adapter_alone_is_copied_with_tokenizer_and_card(adapted: Adapted, tmp_path: Path) -> None:
    base, adapter = adapted()
    (adapter / "optimizer.pt").write_bytes(b"not to be copied")
    write_lora(base, adapter, tmp_path / "lora", CARD)
    names = {path.name for path in (tmp_path / "lora").iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json", "README.md"} <= names
    assert "optimizer.pt" not in names and "chat_template.jinja" in names
    (adapter / "adapter_model.safetensors").unlink()
    with pytest.raises(LoraExportError, match="lacks"):
        write_lora(base, adapter, tmp_path / "again", CARD)


MEMORY = """
import json, resource, sys
from pathlib import Path
from backpropagate.training.export.merged import safetensors as merged_folder
base, adapter, target = map(Path, sys.argv[1:])
merged_folder.BLOCK_BYTES = 4 << 20
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
merged_folder.write_merged(base, adapter, target, "")
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"grown_mib": (after - before) / 1024, "torch": "torch" in sys.modules}))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss has another unit elsewhere")
@pytest.mark.slow
def test_memory_does_not_grow_with_the_model_and_torch_is_not_imported(tmp_path: Path) -> None:
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    rows, columns = 16_384, 8_192
    for folder in (base, adapter):
        folder.mkdir()
    (base / "config.json").write_text("{}")
    entry = {"dtype": "BF16", "shape": [rows, columns], "data_offsets": [0, rows * columns * 2]}
    header = json.dumps({"big.weight": entry}).encode()
    with (base / "model.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + rows * columns * 2)  # zeros that take no space
    name = "base_model.model.big.lora_{}.weight"
    matrices = {name.format("A"): torch.ones(1, columns), name.format("B"): torch.ones(rows, 1)}
    save_file(matrices, adapter / "adapter_model.safetensors")
    (adapter / "adapter_config.json").write_text('{"peft_type": "LORA", "lora_alpha": 1, "r": 1}')
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(base), str(adapter), str(tmp_path / "merged")],
        capture_output=True,
        text=True,
        check=True,
    )
    told = json.loads(done.stdout)
    assert told["grown_mib"] < 100, "the model has 256 MiB"
    assert not told["torch"]
