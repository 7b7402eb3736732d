"""What a checkpoint holds: adapter, optimizer and progress. There are no random states to keep, see `fit`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from safetensors.torch import load, save

from ...errors import InputError
from ..peft_adapter import WEIGHTS, AdapterDescription, adapter_files, copy_adapter
from ..plan import Recovery
from .checkpoints import Checkpoints
from .lora_parameters import LoraParameters
from .optimizer import FlatAdamW

OPTIMIZER = "optimizer.safetensors"
PROGRESS = "progress.json"


@dataclass
class Progress:
    """Everything that a resumed run must know besides the tensors."""

    total_steps: int
    micro_batch_tokens: int
    examples: str
    """Fingerprint of the examples' lengths: another data set would make another order."""
    seed: int
    step: int = 0
    """Optimizer steps done; the place in the data follows from it."""
    evaluated: int = 0
    """The last step that was evaluated."""
    eval_loss: float | None = None
    eval_loss_before: float | None = None
    """Of the model as it came."""
    best_loss: float | None = None
    best_step: int | None = None
    worse_evaluations: int = 0
    """Evaluations since the best one."""
    recoveries: list[Recovery] = field(default_factory=list[Recovery])


def snapshot_files(
    progress: Progress, lora: LoraParameters, description: AdapterDescription, optimizer: FlatAdamW
) -> dict[str, bytes]:
    """The files of a checkpoint. The adapter's are plain PEFT, so a checkpoint is an adapter too."""
    state = {name: tensor.cpu() for name, tensor in optimizer.tensors().items()}
    return {
        **adapter_files(lora, description),
        OPTIMIZER: save(state),
        PROGRESS: json.dumps(asdict(progress), indent=1).encode(),
    }


def read_progress(checkpoints: Checkpoints, step: int, expected: Progress) -> Progress:
    """The progress at a checkpoint.

    Raises:
        InputError: the checkpoint is of a run with other data, seed or length than `expected`.
    """
    stored: dict[str, Any] = json.loads(checkpoints.read(step, PROGRESS))
    stored["recoveries"] = [Recovery(**recovery) for recovery in stored["recoveries"]]
    progress = Progress(**stored)
    for name in ("examples", "total_steps", "seed"):
        theirs, ours = getattr(progress, name), getattr(expected, name)
        if theirs != ours:
            raise InputError(
                f"The checkpoint of step {step} belongs to a run with other {name.replace('_', ' ')}:"
                f" {theirs}, not {ours}.",
                hint="Start a new run instead of resuming this one.",
            )
    return progress


def read_adapter(checkpoints: Checkpoints, step: int, lora: LoraParameters) -> None:
    """Take over the adapter of a checkpoint."""
    copy_adapter(checkpoints.path(step), load(checkpoints.read(step, WEIGHTS)), lora)


def read_optimizer(checkpoints: Checkpoints, step: int, optimizer: FlatAdamW) -> None:
    """Take over the optimizer of a checkpoint."""
    optimizer.load(load(checkpoints.read(step, OPTIMIZER)))
