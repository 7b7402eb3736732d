"""Layers with a state instead of attention (Mamba, delta net, short convolutions), and what makes them fast.

Transformers computes them in plain PyTorch unless the packages with their kernels are installed.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

KERNELS: Mapping[str, str] = {
    "fla": "flash-linear-attention",
    "causal_conv1d": "causal-conv1d",
    "mamba_ssm": "mamba-ssm",
}
"""Packages that transformers looks for, and what pip calls them."""
OTHERS = frozenset(("lfm3", "minimax", "recurrent_gemma", "rwkv", "xlstm", "zaya"))
"""Types with such layers for which transformers knows no package."""


def slow_layers(base: Any, device: str, *, packs: bool) -> str | None:
    """What makes training slow, in sentences; None of a model without such layers.

    Args:
        base: of transformers.
        packs: whether its examples go end to end.
    """
    looked_for = _looked_for(base)
    if not looked_for and base.config.get_text_config().model_type not in OTHERS:
        return None
    rows = "" if packs else " Examples are padded, since a state would run on from one to the next."
    return (
        f"This model has recurrent layers: it trains slowly, by autograd.{rows}{_missing(looked_for, device)}"
    )


def _missing(looked_for: list[str], device: str) -> str:
    missing = [KERNELS[name] for name in looked_for if find_spec(name) is None]
    if not missing or device == "cpu":
        return ""
    return f" Faster with kernels that are not installed: pip install {' '.join(missing)}."


def _looked_for(base: Any) -> list[str]:
    """The packages that the file of the model's class names."""
    source = inspect.getsource(sys.modules[type(base).__module__])
    return [name for name in KERNELS if f'"{name}"' in source]
