"""Reads a finished adapter as any other program will: with plain PEFT, on a base without weights."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch

from ..errors import TrainingError
from ..models.quiet_loading import quiet_loading
from ..models.safetensors_files import read_header
from ..untrusted import short_name, shown_path
from .peft_adapter import WEIGHTS

NAMED_FROM = 0.01
"""Smallest share of the weights that is worth naming; norms and biases are below it."""
EXPERTS = "expert"


@dataclass(frozen=True)
class Coverage:
    """What of a base has a LoRA.

    Args:
        share: of the base's weights, 0 to 1.
        left_out: share of each kind of weights that has none, the largest first.
    """

    share: float
    left_out: dict[str, float] = field(default_factory=dict[str, float])

    @property
    def experts(self) -> float:
        """Share of the weights that are experts without a LoRA."""
        return sum(share for kind, share in self.left_out.items() if EXPERTS in kind)


@quiet_loading()
def read_with_peft(model: Path, adapter: Path) -> Coverage:
    """Load an adapter, and say what it covers.

    The base is only a skeleton on the meta device, so that this takes neither its memory nor its time.

    Args:
        model: folder with config.json.
        adapter: folder with adapter_config.json and its weights.

    Raises:
        TrainingError: PEFT cannot load it, or leaves out some of its matrices.
    """
    skeleton = _skeleton(model)
    weights = {id(weight): (name, weight.numel()) for name, weight in skeleton.named_parameters()}
    try:
        adapted = _loaded(skeleton, adapter)
    except Exception as error:  # PEFT raises what its parsers and torch raise
        said = str(error).partition("\n\t")[2] or str(error)
        raise _unreadable(adapter, type(error).__name__, said) from error
    _require_equal(adapted, adapter)
    return _coverage(adapted, weights)


def _skeleton(model: Path) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    config = cast("Any", AutoConfig).from_pretrained(model, local_files_only=True, trust_remote_code=False)
    with torch.device("meta"):
        return cast("Any", AutoModelForCausalLM).from_config(config, trust_remote_code=False)


def _loaded(skeleton: Any, adapter: Path) -> Any:
    from peft import PeftModel

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what PEFT only warns of is compared afterwards
        return cast("Any", PeftModel).from_pretrained(
            skeleton, str(adapter), low_cpu_mem_usage=True, torch_device="cpu", autocast_adapter_dtype=False
        )


def _require_equal(adapted: Any, adapter: Path) -> None:
    different = left_out(adapted, adapter)
    if different:
        raise _unreadable(adapter, different)


def left_out(adapted: Any, adapter: Path) -> str | None:
    """A matrix that PEFT did not take as the file has it; None if there is none.

    PEFT leaves out what it does not know, and makes anew what it misses; it only warns of that.
    """
    from peft import get_peft_model_state_dict  # pyright: ignore[reportUnknownVariableType]

    state = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    read = {name: tuple(tensor.shape) for name, tensor in state.items()}
    written = {name: stored.shape for name, stored in read_header(adapter / WEIGHTS).items()}
    for name in sorted(read.keys() | written.keys()):
        if read.get(name) != written.get(name):
            return f"{short_name(name)} is {written.get(name)} in the file and {read.get(name)} in PEFT"
    return None


def _unreadable(adapter: Path, reason: str, said: str | None = None) -> TrainingError:
    return TrainingError(
        f"PEFT cannot load the adapter that was trained: {reason}.",
        hint=f"Its files are in {shown_path(adapter)}. Train other modules: set lora_target_modules.",
        untrusted=said,
    )


def _coverage(adapted: Any, weights: dict[int, tuple[str, int]]) -> Coverage:
    """Args:
    weights: name and size of each of the base's weights before PEFT wrapped them, by identity.
    """
    from peft.tuners.lora import LoraLayer

    layers = [module for module in adapted.modules() if isinstance(module, LoraLayer)]
    covered = {id(cast("Any", layer).get_base_layer().weight) for layer in layers}
    total = sum(size for _, size in weights.values())
    left_out: dict[str, float] = {}
    for key, (name, size) in weights.items():
        if key not in covered:
            left_out[_kind(name)] = left_out.get(_kind(name), 0.0) + size / total
    named = sorted(left_out.items(), key=lambda item: -item[1])
    return Coverage(
        share=1 - sum(left_out.values()),
        left_out={kind: round(share, 4) for kind, share in named if share >= NAMED_FROM},
    )


def _kind(name: str) -> str:
    """`model.layers.3.mlp.experts.gate_up_proj` → `mlp.experts.gate_up_proj`."""
    return re.sub(r"^(?:.*\.)?\d+\.|\.weight$|^model\.", "", name)
