"""Reads a finished adapter as any other program will: with plain PEFT, on a base without weights."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file  # pyright: ignore[reportUnknownVariableType]
from torch import Tensor

from ..errors import TrainingError
from ..models.multimodal import language_model_class
from ..models.quiet_loading import quiet_loading
from ..models.transformers_config import transformers_config
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
        return sum(share for kind, share in self.left_out.items() if _is_of_experts(kind))


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
        adapted, lost = _loaded(skeleton, adapter)
    except Exception as error:  # PEFT raises what its parsers and torch raise
        said = str(error).partition("\n\t")[2] or str(error)
        raise _unreadable(adapter, type(error).__name__, said) from error
    _require_equal(adapted, adapter)
    if lost:
        raise _unreadable(adapter, "it does not find all matrices", lost)
    return _coverage(adapted, weights)


def _skeleton(model: Path) -> Any:
    config = transformers_config(model)
    with torch.device("meta"):
        return language_model_class(config).from_config(config, trust_remote_code=False)


def _loaded(skeleton: Any, adapter: Path) -> tuple[Any, str | None]:
    """The model, and what PEFT says of matrices that it renamed and then did not find: it makes them anew."""
    from peft import PeftModel

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        adapted = cast("Any", PeftModel).from_pretrained(
            skeleton, str(adapter), low_cpu_mem_usage=True, torch_device="cpu", autocast_adapter_dtype=False
        )
    lost = next((str(one.message) for one in told if "missing adapter keys" in str(one.message)), None)
    return adapted, lost


def _require_equal(adapted: Any, adapter: Path) -> None:
    different = left_out(adapted, adapter)
    if different:
        raise _unreadable(adapter, different)


def left_out(adapted: Any, adapter: Path) -> str | None:
    """A matrix that PEFT did not take as the file has it; None if there is none.

    PEFT leaves out what it does not know, and makes anew what it misses; it only warns of that.
    """
    from peft import get_peft_model_state_dict  # pyright: ignore[reportUnknownVariableType]

    read = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    written = load_file(adapter / WEIGHTS)
    for name in sorted(read.keys() | written.keys()):
        in_file, in_peft = written.get(name), read.get(name)
        if in_file is None or in_peft is None or in_file.shape != in_peft.shape:
            return f"{short_name(name)} is {_size(in_file)} in the file and {_size(in_peft)} in PEFT"
        if in_peft.device.type != "meta" and not torch.equal(in_peft, in_file.to(in_peft)):
            return f"the numbers of {short_name(name)} are not those of the file"
    return None


def _size(matrix: Tensor | None) -> str:
    return str(None if matrix is None else tuple(matrix.shape))


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
    from peft.tuners.lora.layer import ParamWrapper

    layers: list[Any] = [module for module in adapted.modules() if isinstance(module, LoraLayer)]
    covered = {
        id(layer.get_param() if isinstance(layer, ParamWrapper) else layer.get_base_layer().weight)
        for layer in layers
    }
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


def _is_of_experts(kind: str) -> bool:
    return EXPERTS in kind and "shared" not in kind and not kind.endswith("bias")


def _kind(name: str) -> str:
    """`model.layers.3.mlp.experts.gate_up_proj` → `mlp.experts.gate_up_proj`."""
    return re.sub(r"^(?:.*\.)?\d+\.|\.weight$|^model\.", "", name)
