"""What a training writes to disks, and what an export of it would."""

from __future__ import annotations

from ..config.specs import TrainingSpec
from .data_facts import DataFacts
from .model_facts import ModelFacts

CHECKPOINTS = 3
"""Two are kept, and one is being written."""
CHECKPOINT_BYTES = 12
"""Of a LoRA parameter: its value and two moments."""
ADAPTER_BYTES = 4
TOKEN_BYTES = 5
"""Of a token in the cache."""
QUANTISED = {"q4_k_m": 0.61, "q5_k_m": 0.71, "q6_k": 0.82, "q8_0": 1.07, "f16": 2.0, "bf16": 2.0}
"""Bytes of a weight in a GGUF file."""
WIDEST = 4.0  # f32


def disk_of(facts: ModelFacts, spec: TrainingSpec, data: DataFacts) -> dict[str, float]:
    """GB by what it is; an export is not part of the training."""
    lora = facts.shape.lora_parameters(spec.lora)
    copies = 1 + bool(spec.output)
    bytes_of = {
        "download": facts.download,
        "checkpoints": CHECKPOINTS * CHECKPOINT_BYTES * lora,
        "adapter": copies * ADAPTER_BYTES * lora,
        "tokens": round(TOKEN_BYTES * (data.tokens or 0)),
        "export_q4_k_m": round(QUANTISED["q4_k_m"] * facts.shape.parameters),
    }
    return {name: round(size / 1e9, 3) for name, size in bytes_of.items()}


def written_gb(disk: dict[str, float]) -> float:
    """Of the training itself."""
    return sum(size for name, size in disk.items() if not name.startswith("export"))
