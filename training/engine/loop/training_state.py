"""What a checkpoint holds: adapter, optimizer and counters. There are no random states to keep, see `fit`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from safetensors.torch import load, save

from ...config.results import Recovery
from ...errors import InputError
from ...untrusted import short_name
from ..lora_parameters import LoraParameters
from ..peft_adapter import WEIGHTS, AdapterDescription, adapter_files, load_into_buffer
from .checkpoints import Checkpoints
from .optimizer import FlatAdamW

OPTIMIZER = "optimizer.safetensors"
STATE = "progress.json"  # its name in every checkpoint so far


@dataclass
class TrainingState:
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


def training_state_files(
    state: TrainingState, lora: LoraParameters, description: AdapterDescription, optimizer: FlatAdamW
) -> dict[str, bytes]:
    """The files of a checkpoint. The adapter's are plain PEFT, so a checkpoint is an adapter too."""
    moments = {name: tensor.cpu() for name, tensor in optimizer.tensors().items()}
    return {
        **adapter_files(lora, description),
        OPTIMIZER: save(moments),
        STATE: json.dumps(_record(state), indent=1).encode(),
    }


def _record(state: TrainingState) -> dict[str, Any]:
    return {**asdict(state), "recoveries": [recovery.model_dump() for recovery in state.recoveries]}


def read_training_state(checkpoints: Checkpoints, step: int, expected: TrainingState) -> TrainingState:
    """The state at a checkpoint.

    Raises:
        InputError: the checkpoint is of a run with other data, seed or length than `expected`.
    """
    stored: dict[str, Any] = json.loads(checkpoints.read(step, STATE))
    stored["recoveries"] = [Recovery(**recovery) for recovery in stored["recoveries"]]
    state = TrainingState(**stored)
    for name in ("examples", "total_steps", "seed"):
        theirs, ours = getattr(state, name), getattr(expected, name)
        if theirs != ours:
            raise InputError(
                f"The checkpoint of step {step} belongs to a run with other {name.replace('_', ' ')}:"
                f" {short_name(theirs)}, not {ours}.",
                hint="Start a new run instead of resuming this one.",
            )
    return state


def read_adapter(checkpoints: Checkpoints, step: int, lora: LoraParameters) -> None:
    """Take over the adapter of a checkpoint."""
    load_into_buffer(checkpoints.path(step), load(checkpoints.read(step, WEIGHTS)), lora)


def read_optimizer(checkpoints: Checkpoints, step: int, optimizer: FlatAdamW) -> None:
    """Take over the optimizer of a checkpoint."""
    optimizer.load(load(checkpoints.read(step, OPTIMIZER)))
