"""A row's loss does not depend on the rows beside it, also where rotary scaling depends on the longest."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from backpropagate import Trainer


@pytest.fixture
def longrope_model(tmp_path: Path, tiny_model: Path) -> Path:
    import shutil

    import torch
    from transformers import Phi3Config, Phi3ForCausalLM

    folder = tmp_path / "longrope"
    shutil.copytree(tiny_model, folder)
    config = json.loads((tiny_model / "config.json").read_text())
    rope = {
        "rope_type": "longrope",
        "rope_theta": 1e4,
        "original_max_position_embeddings": 64,
        "factor": 8.0,
        "long_factor": [1.5] * 4,
        "short_factor": [1.1] * 4,
    }
    sizes = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    torch.manual_seed(0)
    made = Phi3Config(
        **{name: config[name] for name in sizes},
        num_key_value_heads=2,
        max_position_embeddings=512,
        original_max_position_embeddings=64,
        rope_parameters=rope,
        pad_token_id=1,
        eos_token_id=1,
        bos_token_id=0,
    )
    Phi3ForCausalLM(made).save_pretrained(folder)
    return folder


def test_the_first_loss_is_the_same_however_the_rows_share_micro_batches(
    longrope_model: Path, tmp_path: Path
) -> None:
    rows = [{"prompt": f"{n}?", "completion": "it is " * (1 if n % 2 else 30)} for n in range(6)]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    losses: list[float | None] = []
    for most in (4096, 16):
        settings = {"micro_batch_tokens": most, "held_out": 0, "threads": 1}
        trainer = Trainer(str(longrope_model), batch_size=6, lora_r=2, **settings)
        run = trainer.train(str(file), steps=1)
        losses.append(run.first_loss)
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
