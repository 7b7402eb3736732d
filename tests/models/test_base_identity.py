"""A base model is known by its weights and its configuration, whatever its name."""

from __future__ import annotations

import shutil
import sys
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_lora import build_base, change_json

from backpropagate.training.errors import ModelLoadError, TrainingAbortedError
from backpropagate.training.models.base_identity import BaseIdentity, difference_from, identify_base
from backpropagate.training.models.safetensors_files import stored_tensors


def test_the_names_of_folders_and_what_is_not_computed_make_no_other_base(
    tiny_model: Path, tmp_path: Path
) -> None:
    one = identify_base(build_base(tmp_path / "one", tiny_model, shard="30KB"))
    copy = Path(shutil.copytree(tmp_path / "one", tmp_path / "snapshots" / "copy"))
    change_json(copy / "config.json", transformers_version="9.9", use_cache=False)
    assert difference_from(one, copy) is None


@pytest.mark.skipif(sys.platform == "win32", reason="links take a privilege")
def test_a_model_in_the_hubs_cache_is_known_by_the_names_of_its_files(
    tiny_model: Path, tmp_path: Path
) -> None:
    base = build_base(tmp_path / "models--me--tiny" / "snapshots" / "one", tiny_model)
    expected = identify_base(base)
    weights = base / "model.safetensors"
    blob = tmp_path / "models--me--tiny" / "blobs" / sha256(weights.read_bytes()).hexdigest()
    blob.parent.mkdir()
    weights.rename(blob)
    weights.symlink_to(blob)
    assert identify_base(base, lambda: True) == expected, "nothing is read, so nothing is stopped"


def test_one_changed_bit_or_entry_is_another_base(tiny_model: Path, tmp_path: Path) -> None:
    base = build_base(tmp_path / "base", tiny_model)
    before = identify_base(base)
    change_json(base / "config.json", rms_norm_eps=1e-5)
    assert difference_from(before, base) == "config.json"
    weights = load_file(base / "model.safetensors")
    weights["model.norm.weight"].view(torch.int32)[3] ^= 1
    save_file(weights, base / "model.safetensors", {"format": "pt"})
    assert difference_from(before, base) == "weights"


def test_a_record_without_hashes_is_of_no_known_base() -> None:
    assert BaseIdentity.from_record({"name": "me/model", "revision": None}) is None
    known = BaseIdentity("a" * 64, "b" * 64)
    assert BaseIdentity.from_record(known.record()) == known


def test_identifying_a_base_stops_when_it_is_cancelled_and_names_a_config_that_cannot_be_read(
    tiny_model: Path, tmp_path: Path
) -> None:
    base = build_base(tmp_path / "base", tiny_model)
    with pytest.raises(TrainingAbortedError):
        identify_base(base, lambda: True)
    (base / "config.json").write_text("[1]")
    with pytest.raises(ModelLoadError, match=r"config\.json cannot be read"):
        identify_base(base)


def test_one_file_of_weights_comes_before_the_index_of_an_older_checkpoint(
    tiny_model: Path, tmp_path: Path
) -> None:
    base = build_base(tmp_path / "base", tiny_model, shard="30KB")
    new = build_base(tmp_path / "new", tiny_model)
    (new / "model.safetensors").rename(base / "model.safetensors")
    assert {tensor.path.name for tensor in stored_tensors(base).values()} == {"model.safetensors"}


@pytest.mark.parametrize("text", ["{", "[]", '{"weight_map": 3}', '{"weight_map": {"a": 1}}'])
def test_an_index_that_cannot_be_read_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(text)
    with pytest.raises(ModelLoadError, match=r"index\.json is not a readable index"):
        stored_tensors(tmp_path)
