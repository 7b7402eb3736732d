"""Lack of memory: known by its error, and told with the next setting that needs less."""

from __future__ import annotations

import gc
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, Literal

import torch

from ..errors import BackpropagateError, GpuOutOfMemoryError
from ..hardware.neighbours import held_by_others
from ..models.presets import smaller_preset
from ..next_step import then
from .plan import Plan

Doing = Literal["loading", "training", "evaluating", "answering", "saving"]

SHORTEST = 128
"""max_seq_length is not halved below this: hardly a row would be left whole."""


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether an error of torch or Python says that memory ran out."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    phrases = ("out of memory", "can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")
    return any(phrase in str(error) for phrase in phrases)


@contextmanager
def memory_errors(plan: Plan, doing: Doing) -> Generator[None]:
    """Raise a lack of memory as GpuOutOfMemoryError; any other error as it is."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, BackpropagateError) or not ran_out_of_memory(error):
            raise
        message = f"Memory ran out while {doing} on the {plan.device}."
        raise out_of_memory(plan, doing, message, first_line(error)) from error


def empty_cache(device: str) -> None:
    """Give back memory that nothing refers to any more."""
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()


def with_neighbours(message: str, device: str) -> str:
    """The message, and which other processes hold memory of a GPU."""
    held = held_by_others() if device == "cuda" else ""
    return f"{message} {held}." if held else message


def first_line(error: BaseException) -> str:
    """What was said when memory ran out."""
    return str(error).splitlines()[0] if str(error) else "out of memory"


def out_of_memory(plan: Plan, doing: Doing, message: str, said: str | None = None) -> GpuOutOfMemoryError:
    """The error, with the setting to change.

    Args:
        said: what the library said, if it did: it stays out of the message.
    """
    message = with_neighbours(message, plan.device)
    settings = _needs_less(plan, doing)
    if settings:
        return GpuOutOfMemoryError(message, next=then("ask_again", **settings), untrusted=said)
    return GpuOutOfMemoryError(
        message,
        hint="Free memory on the device: the smallest model with the smallest settings does not fit.",
        untrusted=said,
    )


def _needs_less(plan: Plan, doing: Doing) -> dict[str, Any]:
    """The change with the least loss that needs less memory; empty if none is left."""
    training = plan.training
    if doing == "answering" and plan.evaluation.max_new_tokens > 16:
        return {"max_new_tokens": plan.evaluation.max_new_tokens // 2}
    if doing == "saving" and plan.lora.r > 1:
        return {"lora_r": plan.lora.r // 2}
    if doing == "training" and training.engine in ("trl", "unsloth") and plan.batch_size > 1:
        return {"batch_size": plan.batch_size // 2}
    if doing == "training" and training.recompute != "everything":
        return {"recompute": "everything"}
    if not plan.load_in_4bit:
        return {"load_in_4bit": True, **({"base_precision": "auto"} if training.in_fp8 else {})}
    if training.engine == "packed" and plan.device == "cuda" and plan.resident_layers != 0:
        return {"weights": "host"}
    if doing != "loading" and plan.data.max_seq_length >= 2 * SHORTEST:
        return {"max_seq_length": plan.data.max_seq_length // 2}
    smaller = smaller_preset(sum(file.stat().st_size for file in plan.model.glob("*.safetensors")))
    return {"model": smaller} if smaller else {}
