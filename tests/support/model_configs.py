"""config.json folders of real sizes, beside weights of which nothing is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

QWEN: dict[str, dict[str, Any]] = {
    "7b": {"hidden_size": 3584, "num_hidden_layers": 28, "num_attention_heads": 28,
           "num_key_value_heads": 4, "intermediate_size": 18944},
    "14b": {"hidden_size": 5120, "num_hidden_layers": 48, "num_attention_heads": 40,
            "num_key_value_heads": 8, "intermediate_size": 13824},
    "32b": {"hidden_size": 5120, "num_hidden_layers": 64, "num_attention_heads": 40,
            "num_key_value_heads": 8, "intermediate_size": 27648},
    "70b": {"hidden_size": 8192, "num_hidden_layers": 80, "num_attention_heads": 64,
            "num_key_value_heads": 8, "intermediate_size": 28672},
}  # fmt: skip
EMPTY_WEIGHTS = (2).to_bytes(8, "little") + b"{}"


def config_of(size: str, **entries: Any) -> dict[str, Any]:
    """The config.json of a Qwen2.5 of this size."""
    return {
        "model_type": "qwen2",
        "architectures": ["Qwen2ForCausalLM"],
        "vocab_size": 152064,
        "tie_word_embeddings": False,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "rope_theta": 1e6,
        **QWEN[size],
        **entries,
    }


def config_folder(folder: Path, size: str, **entries: Any) -> Path:
    """A model folder that can be planned with, and not loaded."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config_of(size, **entries)))
    (folder / "model.safetensors").write_bytes(EMPTY_WEIGHTS)
    return folder
