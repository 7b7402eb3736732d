"""Multimodal checkpoints: the language model is trained, under the names of the published model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from multimodal_models import PACKED, multimodal_model, save_with_tokenizer, vocabulary_of
from rarer import rarer
from safetensors.torch import load_file, save_file

from backpropagate import Trainer
from backpropagate.training.config.specs import LoraGroup
from backpropagate.training.engine.packed.open_decoder import load_decoder
from backpropagate.training.engine.plan import Example
from backpropagate.training.engine.select_engine import select_engine
from backpropagate.training.models.decoder_families import MULTIMODAL
from backpropagate.training.models.safetensors_files import read_header

from .conftest import with_lora
from .test_packed_step_equals_peft import assert_same

LORA = LoraGroup(r=4, alpha=8)


def without_vision(model: Any) -> Any:
    """For PEFT's all-linear, which would take the vision tower's modules too."""
    from backpropagate.training.models.multimodal import keep_language_model

    keep_language_model(model)
    return model


def test_every_multimodal_type_that_is_packed_is_tried() -> None:
    assert PACKED.keys() == MULTIMODAL.keys()


def test_capped_logits_which_transformers_leaves_out_of_multimodal_models_are_not_packed(
    saved: Callable[[Any], Path],
) -> None:
    folder = saved(multimodal_model("gemma3", {"final_logit_softcapping": 3.0}))
    engine = select_engine(folder, LORA, load_in_4bit=False, max_seq_length=64)
    assert engine == ("autograd", "The packed step has no capped or scaled logits of multimodal models.")


@pytest.mark.parametrize("family", PACKED)
def test_loss_and_gradients_of_the_packed_language_model_are_pefts(
    family: str, examples: Callable[..., list[Example]], saved: Callable[[Any], Path]
) -> None:
    model = multimodal_model(family)
    folder = saved(model)
    assert select_engine(folder, LORA, load_in_4bit=False, max_seq_length=64)[0] == "packed"
    adapted = with_lora(without_vision(model), LORA)
    decoder = load_decoder(folder, LORA, "float32", "cpu", in_4bit=False)
    values = dict(adapted.named_parameters())
    for name, matrix in decoder.lora.matrices(decoder.lora.values).items():
        matrix.copy_(values[f"base_model.model.{name}.default.weight"].data)
    decoder.refresh()
    assert_same(decoder, adapted, examples(17, 9, 30, 2))


@pytest.mark.parametrize("older", [False, True], ids=["as saved", "older names"])
def test_a_head_that_is_stored_is_used_though_the_config_says_tied(
    older: bool, saved: Callable[[Any], Path]
) -> None:
    model = multimodal_model("mistral3", tie_word_embeddings=False)
    head = model.lm_head.weight.data.clone()
    folder = saved(model)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": True}))
    if older:
        tensors = load_file(folder / "model.safetensors")
        renamed = {
            name.replace("model.language_model.", "language_model.model.").replace(
                "lm_head.", "language_model.lm_head."
            )
            if not name.startswith("language_model.")
            else name: tensor
            for name, tensor in tensors.items()
        }
        assert "language_model.model.norm.weight" in renamed
        save_file(renamed, folder / "model.safetensors", {"format": "pt"})
    decoder = load_decoder(folder, LORA, "float32", "cpu", in_4bit=False)
    assert torch.equal(decoder.lm_head, head)


@pytest.mark.parametrize(("family", "engine"), [
    *(("gemma3", "packed"), ("gemma4", "packed"), ("qwen2_5_vl", "autograd")),
    *(rarer(family, "autograd") for family in ("qwen3_5", "llama4")),
])  # fmt: skip
def test_a_training_leaves_the_vision_part_alone_and_plain_peft_loads_the_adapter(
    family: str, engine: str, tiny_model: Path, tmp_path: Path
) -> None:
    model = multimodal_model(family, {"vocab_size": vocabulary_of(tiny_model)})
    folder = save_with_tokenizer(model, tmp_path / "model", tiny_model)
    rows = [{"prompt": f"{n}?", "completion": f"it is {n}"} for n in range(8)]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    trainer = Trainer(str(folder), batch_size=4, lora_r=2, learning_rate=0.05, held_out=0, threads=1)
    run = trainer.train(str(file), steps=3)
    assert run.result.engine == engine
    adapter = run.adapter_path
    card = (adapter / "README.md").read_text("utf-8")
    assert "AutoModelForImageTextToText.from_pretrained" in card and "AutoModelForCausalLM" not in card
    names = read_header(adapter / "adapter_model.safetensors")
    decoder = next(name for name, module in model.named_modules() if module is model.get_decoder())
    assert names and all(name.startswith(f"base_model.model.{decoder}.") for name in names)
    ids = torch.arange(3, 23)[None]
    with torch.no_grad():
        before = model(input_ids=ids).logits
        loaded = by_plain_peft(folder, adapter)
        after = loaded(input_ids=ids).logits
    assert not torch.allclose(before, after, atol=1e-3)
    lora = [name for name, _ in loaded.named_parameters() if "lora_" in name]
    assert {name.replace(".default", "") for name in lora} == names.keys()


def by_plain_peft(folder: Path, adapter: Path) -> Any:
    from peft import PeftModel
    from transformers import AutoModelForImageTextToText

    model: Any = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
    return PeftModel.from_pretrained(model, str(adapter)).eval()
