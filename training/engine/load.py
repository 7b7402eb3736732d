"""From a folder to a model, and a model with LoRA; never with code from the folder."""

from __future__ import annotations

from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from ..errors import MissingExtraError, ModelLoadError
from .plan import Plan
from .tokenizer import not_loaded


def load_model(plan: Plan) -> Any:
    """The base model on the plan's device, in the plan's precision.

    Raises:
        ModelLoadError: the folder holds no model that can be loaded without running its code.
        MissingExtraError: 4 bits are asked for and bitsandbytes is not installed.
    """
    dtype = getattr(torch, plan.dtype)
    auto: Any = AutoModelForCausalLM  # untyped in transformers
    try:
        model = auto.from_pretrained(
            plan.model_path,
            dtype=dtype,
            device_map={"": plan.device},
            quantization_config=_four_bits(dtype) if plan.load_in_4bit else None,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
        )
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        raise not_loaded(plan.model_path, "model", error) from error
    model.config.use_cache = False
    return model


def add_lora(model: Any, plan: Plan) -> Any:
    """The model with a LoRA on the plan's modules; only that is trained (Hu et al., arXiv:2106.09685).

    Raises:
        ModelLoadError: none of the target modules is in the model.
    """
    torch.manual_seed(plan.seed)  # pyright: ignore[reportUnknownMemberType]
    config = LoraConfig(
        r=plan.lora.r,
        lora_alpha=plan.lora.alpha,
        lora_dropout=plan.lora.dropout,
        target_modules=plan.target_modules,
        task_type="CAUSAL_LM",
    )
    try:
        return get_peft_model(model, config)
    except ValueError as error:
        raise ModelLoadError(
            f"lora_target_modules {plan.target_modules!r} fits no module of the model.",
            hint='Use "all-linear", or names of the model\'s linear layers such as "q_proj".',
            cause=error,
        ) from error


def _four_bits(dtype: torch.dtype) -> BitsAndBytesConfig:
    try:
        import bitsandbytes  # noqa: F401  # pyright: ignore[reportUnusedImport, reportMissingTypeStubs]
    except ImportError as error:
        raise MissingExtraError(
            "load_in_4bit needs bitsandbytes, which is not installed.",
            hint='pip install "backpropagate-mcp[quantized]"',
            cause=error,
        ) from error
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
