"""A frozen base loaded by transformers, and which of its linear modules get a LoRA."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...config.specs import LoraGroup
from ...errors import MissingExtraError, ModelLoadError
from ...models.llama_like import unknown_module
from ...models.multimodal import is_multimodal, keep_language_model, language_model_class
from ...models.quiet_loading import quiet_loading
from ...models.tokenizer import load_error
from ...models.transformers_config import transformers_config
from ..out_of_memory import ran_out_of_memory
from ..plan import Plan


def load_base(plan: Plan) -> Any:
    """The causal language model of `plan`, in 4 bits (NF4, Dettmers et al. 2023, arXiv:2305.14314) if asked.

    Raises:
        ModelLoadError: transformers cannot load it without running code of its folder.
        MissingExtraError: 4 bits are asked for and bitsandbytes is not installed.
    """
    model = load_frozen(plan.model, plan.device, plan.precision, load_in_4bit=plan.load_in_4bit)
    if plan.training.recompute != "nothing":
        # Renamed in transformers 5.2x; the old name warns there.
        enable = (
            getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
        )
        enable({"use_reentrant": False})
    return model


@quiet_loading()
def load_frozen(folder: Path, device: str, precision: str, *, load_in_4bit: bool = False) -> Any:
    """The causal language model of a folder, for inference or as a base; raises as `load_base`.

    Of a multimodal one, only what text needs is kept.
    """
    dtype = getattr(torch, precision)
    options: dict[str, Any] = {"quantization_config": _nf4(dtype)} if load_in_4bit else {}
    local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        config = transformers_config(folder)
        model = language_model_class(config).from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            device_map={"": device},
            use_safetensors=True,
            **local,
            **options,
        )
        keep_language_model(model)
    except Exception as error:  # transformers raises what its parsers raise
        if isinstance(error, ModelLoadError) or ran_out_of_memory(error):
            raise
        raise load_error(folder, "model", error) from error
    model.requires_grad_(False)
    return model


def _nf4(dtype: torch.dtype) -> Any:
    if find_spec("bitsandbytes") is None:
        raise MissingExtraError(
            "load_in_4bit needs bitsandbytes, which is not installed.",
            hint='pip install "backpropagate-mcp[quantized]"',
        )
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


WITHOUT_LORA: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("mamba", "falcon_mamba"), ("x_proj", "dt_proj", "out_proj")),
    **dict.fromkeys(
        ("mamba2", "bamba", "falcon_h1", "granitemoehybrid", "nemotron_h", "zamba2"), ("out_proj",)
    ),
    "jamba": ("dt_proj",),
    "gemma3n_text": ("correction_coefs",),
    "longcat_flash": ("classifier",),
    "laguna": ("shared_experts",),
    "inkling2_text": ("weight_proj",),
}
"""What "all-linear" leaves out, by `model_type`: modules whose weight the layer reads itself, at least with
the kernels of a GPU, so that their LoRA is never called; of the last two, what PEFT saves and cannot load."""
OTHER_PARTS = (
    *("vision", "audio", "image", "speech", "multi_modal", "encoder_attn", "crossattention", "patcher"),
    "indexer",
)
"""In names of modules that no text reaches, or no gradient: "all-linear" leaves them out too."""


def linear_modules(model: Any) -> dict[str, nn.Module]:
    """Every linear module by its full name; Conv1D is GPT-2's, with its weight transposed.

    A class of a model's own that derives from them computes more, as routers do; but not Falcon's.
    """
    from transformers.models.falcon.modeling_falcon import FalconLinear
    from transformers.pytorch_utils import Conv1D

    named: dict[str, nn.Module] = dict(model.named_modules())
    return {
        name: module
        for name, module in named.items()
        if isinstance(module, nn.Linear | Conv1D)
        and (type(module) is FalconLinear or not type(module).__module__.startswith("transformers.models."))
    }


def lora_targets(model: Any, lora: LoraGroup) -> list[str]:
    """The full names of the modules that get a LoRA. "all-linear" leaves the head out, as PEFT does, and
    what `WITHOUT_LORA` and `OTHER_PARTS` name.

    Raises:
        InputError: a name in the list is no linear module.
    """
    linear = linear_modules(model)
    head = model.get_output_embeddings()
    body = [name for name, module in linear.items() if module is not head and not _is_left_out(model, name)]
    if lora.target_modules == "all-linear":
        return body
    if lora.target_modules == "attention":
        return [name for name in body if any("att" in part for part in name.split(".")[:-1])]
    wanted = (lora.target_modules,) if isinstance(lora.target_modules, str) else tuple(lora.target_modules)
    for target in wanted:
        if not any(_matches(name, target) for name in linear):
            raise unknown_module(target, sorted({name.rpartition(".")[2] for name in linear}))
    return [name for name in linear if any(_matches(name, target) for target in wanted)]


def _is_left_out(model: Any, name: str) -> bool:
    without = WITHOUT_LORA.get(model.config.get_text_config().model_type, ())
    parts = name.split(".")
    return any(part in without or any(other in part for other in OTHER_PARTS) for part in parts)


def shortest_names(model: Any, targets: list[str]) -> tuple[str, ...]:
    """`targets` by their last part, where that means no other linear module as well.

    The parts of a multimodal model that were taken away have modules of the same names.
    """
    if is_multimodal(model.config):
        return tuple(sorted(targets))
    last = {name.rpartition(".")[2] for name in targets}
    meant = {name for name, _ in model.named_modules() if any(_matches(name, part) for part in last)}
    return tuple(sorted(last if meant == set(targets) else targets))


def _matches(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")
