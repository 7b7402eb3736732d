"""The trained model as Transformers and PEFT compute it: what an exported file is measured against."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from peft import PeftModel
from torch import Tensor, nn

from ..errors import ModelLoadError
from ..models.decoder_families import EXPORTED_ALONE, PLAIN, decoder_place
from ..models.multimodal import keep_language_model, language_model_class
from ..models.quiet_loading import quiet_loading
from ..models.safetensors_files import stored_tensors
from ..models.tokenizer import load_error
from ..models.transformers_config import transformers_config
from .merged.merge import Floats

SPARE_BYTES = 1 << 30
LM_HEAD_MODULE = "lm_head"


def fits_in_memory(base: Path, bytes_per_weight: int, beside: int = 0) -> bool:
    """Whether the model can be loaded, with `beside` bytes for others and some to spare."""
    parameters = sum(math.prod(tensor.shape) for tensor in stored_tensors(base).values())
    return parameters * bytes_per_weight + beside + SPARE_BYTES < psutil.virtual_memory().available


def _loaded(base: Path, dtype: torch.dtype) -> tuple[Any, Any]:
    """The configuration and the model of a folder."""
    local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        config = transformers_config(base)
        return config, language_model_class(config).from_pretrained(
            base, config=config, dtype=dtype, use_safetensors=True, **local
        )
    except (ModelLoadError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # transformers raises what its parsers raise
        raise load_error(base, "model", error) from error


class Reference:
    """Base and adapter on the CPU.

    Raises:
        ModelLoadError: Transformers cannot load the base.

    Args:
        base: the model's folder. Of a multimodal one the language model is meant; names are as in that alone.
        adapter: the LoRA's folder, or None.
        dtype: of the computation; fp32 for proofs.
    """

    def __init__(self, base: Path, adapter: Path | None, dtype: torch.dtype = torch.float32) -> None:
        peft: Any = PeftModel
        with quiet_loading():
            config, model = _loaded(base, dtype)
        keep_language_model(model)
        self._place = decoder_place(config, EXPORTED_ALONE)[1]
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
        module, _, last = re.sub(r"^model\b", self._place, name).rpartition(".")
        weight: Tensor = getattr(self._model.get_submodule(module), last)  # a parameter or a buffer
        rows = weight[start : start + len(values)] if weight.dim() > 1 else weight
        with torch.no_grad():
            rows.copy_(torch.as_tensor(values).reshape(rows.shape))

    def linears(self) -> dict[str, nn.Linear]:
        """Its linear layers by the names of their weights; a tied head by the embedding's."""
        found = {
            f"{self._in_text_model(name)}.weight": module
            for name, module in self._model.named_modules()
            if isinstance(module, nn.Linear)
        }
        head = found.get(f"{LM_HEAD_MODULE}.weight")
        names = {id(weight): self._in_text_model(name) for name, weight in self._model.named_parameters()}
        if head is not None and names[id(head.weight)] not in found:
            found[names[id(head.weight)]] = found.pop(f"{LM_HEAD_MODULE}.weight")
        return found

    def _in_text_model(self, name: str) -> str:
        """A module's or parameter's name in the language model alone."""
        return re.sub(rf"^{re.escape(self._place)}\b", PLAIN, name)

    def imatrix(self, rows: Sequence[Sequence[int]], on_row: Callable[[int], None]) -> dict[str, Floats]:
        """Mean square of each input of each linear layer over the rows' tokens, by the weight's name.

        The weight that llama.cpp's importance matrix gives to a column's rounding errors.

        Args:
            on_row: called with the number of rows that are done; may raise to stop.
        """
        sums: dict[str, Tensor] = {}
        hooks = [
            module.register_forward_pre_hook(_summing(sums, self._in_text_model(_weight_name(name))))
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
