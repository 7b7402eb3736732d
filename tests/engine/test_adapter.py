"""The adapter is plain PEFT, in both directions."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from backpropagate.training.config.specs import LoraGroup
from backpropagate.training.engine.loop.batch import packed_batch
from backpropagate.training.engine.peft_adapter import AdapterDescription, adapter_files, load_adapter
from backpropagate.training.engine.plan import Example
from backpropagate.training.errors import InputError
from backpropagate.training.files.atomic_folder import write_files

from .conftest import tiny_model, with_lora
from .test_packed_step_equals_peft import packed_copy

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
MODULES = ("down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj")


@pytest.mark.parametrize("rslora", [False, True])
def test_a_saved_adapter_gives_the_same_logits_in_plain_peft(
    rslora: bool,
    tmp_path: Path,
    examples: Callable[..., list[Example]],
    saved: Callable[[Any], Path],
) -> None:
    from peft import PeftModel

    lora = LoraGroup(r=4, alpha=8, rslora=rslora)
    model = tiny_model("qwen2")
    adapted = with_lora(model, lora)
    decoder = packed_copy(adapted, saved(model), lora)
    description = AdapterDescription(lora, "some/model", MODULES)
    write_files(tmp_path / "adapter", adapter_files(decoder.lora, description))
    loaded = PeftModel.from_pretrained(tiny_model("qwen2"), str(tmp_path / "adapter"))
    example = examples(20)[0]
    ids = torch.tensor([example.input_ids])
    assert torch.equal(loaded(input_ids=ids).logits, adapted(input_ids=ids).logits)
    batch = packed_batch([example])
    logits = loaded(input_ids=ids).logits[0]
    expected = torch.nn.functional.cross_entropy(
        logits[batch.label_positions], batch.targets, reduction="sum"
    )
    assert float(decoder.loss(batch)) == pytest.approx(float(expected), rel=1e-6)


def test_an_adapter_saved_by_peft_can_be_trained_on(tmp_path: Path, saved: Callable[[Any], Path]) -> None:
    lora = LoraGroup(r=4, alpha=8)
    model = tiny_model("qwen3", head_dim=12)
    adapted = with_lora(model, lora)
    adapted.save_pretrained(tmp_path / "adapter")
    decoder = packed_copy(adapted, saved(model), lora)
    expected = decoder.lora.values.clone()
    decoder.lora.values.zero_()
    load_adapter(tmp_path / "adapter", decoder.lora, lora)
    assert torch.equal(decoder.lora.values, expected)


@pytest.mark.parametrize(
    ("theirs", "message"),
    [
        (LoraGroup(r=8, alpha=8), "has rank 8, not 4"),
        (LoraGroup(r=4, alpha=16), "scaled by 4, not 2"),
        (LoraGroup(r=4, alpha=8, target_modules="attention"), "of other modules: it lacks"),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused(
    theirs: LoraGroup, message: str, tmp_path: Path, saved: Callable[[Any], Path]
) -> None:
    lora = LoraGroup(r=4, alpha=8)
    model = tiny_model("llama")
    with_lora(model, theirs).save_pretrained(tmp_path / "adapter")
    decoder = packed_copy(with_lora(model, lora), saved(model), lora)
    with pytest.raises(InputError, match=message):
        load_adapter(tmp_path / "adapter", decoder.lora, lora)


def test_an_adapter_that_is_more_than_lora_is_refused(tmp_path: Path, saved: Callable[[Any], Path]) -> None:
    lora = LoraGroup(r=4, alpha=8)
    model = tiny_model("llama")
    adapted = with_lora(model, lora)
    adapted.peft_config["default"].alpha_pattern = {"q_proj": 16}
    adapted.save_pretrained(tmp_path / "adapter")
    decoder = packed_copy(adapted, saved(model), lora)
    with pytest.raises(InputError, match="not plain LoRA"):
        load_adapter(tmp_path / "adapter", decoder.lora, lora)


def test_a_folder_without_an_adapter_is_refused(tmp_path: Path, saved: Callable[[Any], Path]) -> None:
    lora = LoraGroup(r=4, alpha=8)
    model = tiny_model("llama")
    decoder = packed_copy(with_lora(model, lora), saved(model), lora)
    with pytest.raises(InputError, match="no LoRA adapter that can be read"):
        load_adapter(tmp_path, decoder.lora, lora)


def test_a_new_lora_changes_nothing_and_is_the_same_on_every_engine(saved: Callable[[Any], Path]) -> None:
    lora = LoraGroup(r=4, alpha=8)
    model = tiny_model("llama")
    decoder = packed_copy(with_lora(model, lora), saved(model), lora)
    decoder.lora.initialise(seed=7)
    first = decoder.lora.matrices(decoder.lora.values)
    a = first["model.layers.1.mlp.down_proj.lora_A"]
    assert not first["model.layers.1.mlp.down_proj.lora_B"].any()
    assert 0.9 / 80**0.5 < a.abs().max() <= 1 / 80**0.5
    attention = packed_copy(
        with_lora(model, LoraGroup(r=4, target_modules=("down_proj",))), saved(model),
        LoraGroup(r=4, target_modules=("down_proj",)),
    )  # fmt: skip
    attention.lora.initialise(seed=7)
    other = attention.lora.matrices(attention.lora.values)
    assert torch.equal(other["model.layers.1.mlp.down_proj.lora_A"], a)


def test_the_config_is_json_that_names_what_was_trained(tmp_path: Path, saved: Callable[[Any], Path]) -> None:
    lora = LoraGroup(r=4, alpha=8, dropout=0.1)
    model = tiny_model("llama")
    decoder = packed_copy(with_lora(model, lora), saved(model), lora)
    files = adapter_files(decoder.lora, AdapterDescription(lora, "some/model", MODULES))
    config = json.loads(files["adapter_config.json"])
    assert (config["r"], config["lora_alpha"], config["lora_dropout"]) == (4, 8, 0.1)
    assert config["base_model_name_or_path"] == "some/model"
    assert config["target_modules"] == list(MODULES)
