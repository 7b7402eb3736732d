"""The export of a trained multimodal checkpoint is its language model, without the vision part."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from multimodal_models import multimodal_model, save_with_tokenizer, vocabulary_of
from rarer import with_rarer

from backpropagate import Trainer

IDS = torch.arange(3, 23)[None]


@pytest.mark.parametrize(
    "family", with_rarer(["gemma3", "gemma4"], ["mistral3", "qwen3_5", "gemma4_unified"])
)
def test_the_merged_model_and_the_gguf_are_the_trained_language_model(
    family: str, tiny_model: Path, tmp_path: Path
) -> None:
    import gguf

    rows = vocabulary_of(tiny_model) + 4  # room for the tokens that transformers' tokenizer of a family adds
    sizes = {"vocab_size": rows} | ({"vocab_size_per_layer_input": rows} if family == "gemma4" else {})
    base = save_with_tokenizer(
        multimodal_model(family, sizes),
        tmp_path / "model",
        tiny_model,
    )
    file = tmp_path / "rows.jsonl"
    examples = [{"prompt": f"{n}?", "completion": f"it is {n}"} for n in range(8)]
    file.write_text("".join(json.dumps(row) + "\n" for row in examples))
    trainer = Trainer(str(base), batch_size=4, lora_r=2, learning_rate=0.05, held_out=0, threads=1)
    run = trainer.train(str(file), steps=3)
    merged = Path(trainer.export(format="merged", output=str(tmp_path / "merged")).path)
    config = json.loads((merged / "config.json").read_text())
    assert "vision_config" not in config and config["architectures"][0].endswith("ForCausalLM")
    with torch.no_grad():
        expected = adapted(base, run.adapter_path)(input_ids=IDS).logits
        found = text_model(merged)(input_ids=IDS).logits
    assert torch.allclose(found, expected, atol=1e-4)
    written = trainer.export(format="gguf", quantization="f32", output=str(tmp_path / "model.gguf"))
    names = {tensor.name for tensor in gguf.GGUFReader(written.path).tensors}
    assert "blk.1.ffn_down.weight" in names and not any(name.startswith("v.") for name in names)


def text_model(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    model, told = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    assert not told["missing_keys"] and not told["unexpected_keys"]
    return model


def adapted(base: Path, adapter: Path) -> Any:
    from peft import PeftModel
    from transformers import AutoModelForImageTextToText

    model: Any = AutoModelForImageTextToText.from_pretrained(base, dtype=torch.float32)
    return PeftModel.from_pretrained(model, str(adapter)).eval()
