"""Loading safetensors into the merged buffers."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from backpropagate.training.config.specs import LoraGroup
from backpropagate.training.engine.packed import load_weights as weights
from backpropagate.training.engine.packed.decoder import PackedDecoder
from backpropagate.training.engine.packed.decoder_config import read_decoder_config
from backpropagate.training.engine.packed.open_decoder import load_decoder
from backpropagate.training.errors import ModelLoadError
from backpropagate.training.models.safetensors_files import StoredTensor, shards

from .conftest import tiny_model
from .test_packed_step_equals_peft import GPT_OSS


def decoder_of(model: Any) -> PackedDecoder:
    return PackedDecoder(
        read_decoder_config(model.config), LoraGroup(r=4), torch.float32, torch.device("cpu")
    )


def kept_weights(decoder: PackedDecoder) -> dict[str, Tensor]:
    """What loading fills, by names; of weights in 4 bits their parts."""
    parts = {
        f"{name} {part}": tensor
        for name, weight in weights.nf4_weights(decoder).items()
        for part, tensor in weight.parts.items()
    }
    return weights.destinations(decoder) | parts


def cut_while_read(path: Path, size: int, monkeypatch: pytest.MonkeyPatch) -> str:
    """Let a file lose its end as soon as its header was read; the first tensor that misses something."""
    header = weights.stored_tensors(path.parent)

    def then_cut(folder: Path) -> dict[str, StoredTensor]:
        path.write_bytes(path.read_bytes()[:size])
        return header

    monkeypatch.setattr(weights, "stored_tensors", then_cut)
    return next(name for name, tensor in header.items() if tensor.end > size)


def test_shards_and_small_reads_give_the_same_weights(tmp_path: Path) -> None:
    model = tiny_model("qwen3", head_dim=16)
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(shards(tmp_path)) > 3
    decoder = decoder_of(model)
    weights.load_weights(decoder, tmp_path, threads=4, piece_bytes=1000)
    state = model.state_dict()
    assert torch.equal(decoder.embedding, state["model.embed_tokens.weight"])
    assert torch.equal(decoder.lm_head, state["lm_head.weight"])
    for index, layer in enumerate(decoder.layers):
        prefix = f"model.layers.{index}."
        parts = [state[f"{prefix}self_attn.{name}_proj.weight"] for name in "qkv"]
        assert torch.equal(layer.qkv.weight, torch.cat(parts))
        assert torch.equal(layer.mlp.down_proj.weight, state[f"{prefix}mlp.down_proj.weight"])
        assert layer.qk_norm is not None
        assert torch.equal(layer.qk_norm[3], state[f"{prefix}self_attn.q_norm.weight"])
        assert torch.equal(layer.qk_norm[5], state[f"{prefix}self_attn.k_norm.weight"])


@pytest.mark.parametrize("in_4bit", [False, True])
def test_rows_of_experts_that_are_longer_than_a_buffer_are_read_in_parts(
    in_4bit: bool, saved: Callable[[Any], Path]
) -> None:
    folder = saved(tiny_model("gpt_oss", **GPT_OSS))
    decoder = load_decoder(folder, LoraGroup(r=4), "float32", "cpu", in_4bit=in_4bit)
    expected = {name: weight.clone() for name, weight in kept_weights(decoder).items()}
    assert any(weight[0].nbytes > 64 for weight in expected.values())
    for weight in kept_weights(decoder).values():
        weight.zero_()
    weights.load_weights(decoder, folder, threads=3, piece_bytes=64)
    for name, weight in kept_weights(decoder).items():
        assert torch.equal(weight, expected[name]), name


def test_half_precision_weights_are_converted(saved: Callable[[Any], Path]) -> None:
    model = tiny_model("llama")
    folder = saved(model.bfloat16())
    decoder = decoder_of(model)
    weights.load_weights(decoder, folder)
    assert torch.equal(decoder.layers[0].o_proj.weight, model.model.layers[0].self_attn.o_proj.weight.float())


def test_a_truncated_file_is_refused(saved: Callable[[Any], Path]) -> None:
    model = tiny_model("llama")
    path = saved(model) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ModelLoadError, match="truncated at"):
        weights.load_weights(decoder_of(model), path.parent)


@pytest.mark.parametrize("threads", [1, 4])
def test_of_a_file_that_shrinks_while_it_is_read_the_first_tensor_that_is_cut_is_named(
    threads: int, saved: Callable[[Any], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model("llama")
    path = saved(model) / "model.safetensors"
    cut = cut_while_read(path, path.stat().st_size // 2, monkeypatch)
    with pytest.raises(ModelLoadError, match=f"^{re.escape(cut)} in .*safetensors ends too early"):
        weights.load_weights(decoder_of(model), path.parent, threads=threads, piece_bytes=512)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("read-rows")]


def test_of_two_wrong_tensors_the_first_one_is_named(
    saved: Callable[[Any], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tiny_model("llama")) / "model.safetensors"
    cut = cut_while_read(path, 2000, monkeypatch)
    wider = decoder_of(tiny_model("llama", intermediate_size=96))
    with pytest.raises(ModelLoadError, match=f"^{re.escape(cut)} in .* ends too early"):
        weights.load_weights(wider, path.parent, threads=8)


def test_a_file_that_is_not_safetensors_is_refused(saved: Callable[[Any], Path]) -> None:
    model = tiny_model("llama")
    path = saved(model) / "model.safetensors"
    path.write_bytes(b"\x80\x04" * 500)
    with pytest.raises(ModelLoadError, match="not a safetensors file"):
        weights.load_weights(decoder_of(model), path.parent)


def test_a_folder_with_pickled_weights_only_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ModelLoadError, match=r"model\.safetensors"):
        shards(tmp_path)


def test_other_tensors_do_not_matter_but_weights_must_be_floats(saved: Callable[[Any], Path]) -> None:
    model = tiny_model("llama")
    path = saved(model) / "model.safetensors"
    tensors = {**load_file(path), "model.steps": torch.arange(3)}
    save_file(tensors, path)
    weights.load_weights(decoder_of(model), path.parent)
    tensors["model.norm.weight"] = tensors["model.norm.weight"].to(torch.int8)
    save_file(tensors, path)
    with pytest.raises(ModelLoadError, match=r"model\.norm\.weight .* no floating-point numbers"):
        weights.load_weights(decoder_of(model), path.parent)


def test_a_missing_tensor_is_named(saved: Callable[[Any], Path]) -> None:
    wider = tiny_model("llama", num_hidden_layers=3)
    folder = saved(tiny_model("llama"))
    with pytest.raises(ModelLoadError, match=r"lacks 9 tensors.*layers\.2"):
        weights.load_weights(decoder_of(wider), folder)


def test_a_tensor_of_another_shape_is_named(saved: Callable[[Any], Path]) -> None:
    folder = saved(tiny_model("llama"))
    with pytest.raises(ModelLoadError, match="has shape"):
        weights.load_weights(decoder_of(tiny_model("llama", intermediate_size=96)), folder)


def test_an_index_cannot_lead_out_of_the_folder(tmp_path: Path) -> None:
    index = {"weight_map": {"a": "../../elsewhere.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelLoadError, match=str(tmp_path / "elsewhere.safetensors")):
        shards(tmp_path)
