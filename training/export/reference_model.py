"""The trained model as Transformers and PEFT compute it: what an exported file is measured against."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from ..models.quiet_loading import quiet_loading
from ..models.safetensors_files import stored_tensors
from .merged.merge import Floats

SPARE_BYTES = 1 << 30
LM_HEAD_MODULE = "lm_head"


def fits_in_memory(base: Path, bytes_per_weight: int, beside: int = 0) -> bool:
    """Whether the model can be loaded, with `beside` bytes for others and some to spare."""
    parameters = sum(math.prod(tensor.shape) for tensor in stored_tensors(base).values())
    return parameters * bytes_per_weight + beside + SPARE_BYTES < psutil.virtual_memory().available


class Reference:
    """Base and adapter on the CPU.

    Args:
        base: the model's folder.
        adapter: the LoRA's folder, or None.
        dtype: of the computation; fp32 for proofs.
    """

    def __init__(self, base: Path, adapter: Path | None, dtype: torch.dtype = torch.float32) -> None:
        models: Any = AutoModelForCausalLM  # half typed
        peft: Any = PeftModel
        with quiet_loading():
            model = models.from_pretrained(
                base, dtype=dtype, use_safetensors=True, local_files_only=True, trust_remote_code=False
            )
        self._model: Any = peft.from_pretrained(model, adapter) if adapter else model
        self._model.eval()

    def logits(self, input_ids: Sequence[int]) -> Floats:
        """(tokens, vocabulary)."""
        with torch.inference_mode():
            return self._model(torch.tensor([input_ids])).logits[0].float().numpy()

    def set_weights(self, name: str, start: int, values: Floats) -> None:
        """Replace rows of a weight by others, (rows, columns); the adapter is merged first, and is gone.

        Args:
            name: of the weight in the base.
            start: the first of the rows; of a vector, 0.
        """
        if isinstance(self._model, PeftModel):
            merged: Any = self._model
            self._model = merged.merge_and_unload()
        weight: Tensor = self._model.get_parameter(name)
        rows = weight[start : start + len(values)] if weight.dim() > 1 else weight
        with torch.no_grad():
            rows.copy_(torch.as_tensor(values).reshape(rows.shape))

    def linears(self) -> dict[str, nn.Linear]:
        """Its linear layers by the names of their weights; a tied head by the embedding's."""
        found = {
            f"{name}.weight": module
            for name, module in self._model.named_modules()
            if isinstance(module, nn.Linear)
        }
        head = found.get(f"{LM_HEAD_MODULE}.weight")
        names = {id(weight): name for name, weight in self._model.named_parameters()}
        if head is not None and names[id(head.weight)] not in found:
            found[names[id(head.weight)]] = found.pop(f"{LM_HEAD_MODULE}.weight")
        return found

    def imatrix(self, rows: Sequence[Sequence[int]], on_row: Callable[[int], None]) -> dict[str, Floats]:
        """Mean square of each input of each linear layer over the rows' tokens, by the weight's name.

        The weight that llama.cpp's importance matrix gives to a column's rounding errors.

        Args:
            on_row: called with the number of rows that are done; may raise to stop.
        """
        sums: dict[str, Tensor] = {}
        hooks = [
            module.register_forward_pre_hook(_summing(sums, _weight_name(name)))
            for name, module in self._model.named_modules()
            if isinstance(module, nn.Linear) and "lora_" not in name and not name.endswith(LM_HEAD_MODULE)
        ]
        try:
            for done, row in enumerate(rows, 1):
                self.logits(row)
                on_row(done)
        finally:
            for hook in hooks:
                hook.remove()
        tokens = sum(len(row) for row in rows)
        return {name: np.asarray(total / tokens, np.float32) for name, total in sums.items()}


def _summing(sums: dict[str, Tensor], name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        squares = inputs[0].detach().float().square().flatten(0, -2).sum(0)  # (columns,)
        sums[name] = sums[name] + squares if name in sums else squares

    return hook


def _weight_name(module: str) -> str:
    """The base's name of a module's weight, inside PEFT or not."""
    return f"{module.removeprefix('base_model.model.').removesuffix('.base_layer')}.weight"
