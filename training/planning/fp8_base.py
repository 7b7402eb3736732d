"""Whether a training can have its frozen weights in FP8, as it was asked for; nothing takes its place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..config.specs import TrainingSpec
from ..errors import GpuNotAvailableError, InputError
from ..next_step import then
from .decoder_shape import DecoderShape
from .engine_choice import engine_of
from .machine import Machine

MULTIPLE = 16
"""Both sizes of a matrix that tensor cores multiply in FP8 are multiples of it."""
CAPABILITY = (8, 9)
"""Least compute capability with FP8: Ada. Hopper is 9.0."""


def require_fp8(spec: TrainingSpec, config: Mapping[str, Any], shape: DecoderShape, machine: Machine) -> None:
    """Refuse base_precision="fp8" where it cannot be had.

    Args:
        config: the content of config.json.

    Raises:
        InputError: other settings or the model contradict it.
        GpuNotAvailableError: the device has no FP8.
    """
    if not spec.training.in_fp8:
        return
    for kind, obstacles in (
        (InputError, _of_request(spec, config, shape)),
        (GpuNotAvailableError, _of_device(machine)),
    ):
        for obstacle in obstacles:
            raise kind(
                f"base_precision is fp8, but {obstacle}.",
                hint='Leave base_precision out: "auto" trains in bf16 on a GPU, and in fp32 on a CPU.',
                next=then("ask_again", base_precision="auto"),
            )


def _of_request(spec: TrainingSpec, config: Mapping[str, Any], shape: DecoderShape) -> Iterator[str]:
    """What speaks against it, as parts of sentences."""
    if spec.model.load_in_4bit:
        yield "load_in_4bit is set: a base has either 8 or 4 bits"
    if spec.training.weights in ("host", "sharded"):
        yield f"weights is {spec.training.weights}: weights in FP8 do not stream"
    engine, why = engine_of(spec, config)
    if engine != "packed":
        reason = f"{engine} was asked for" if why == "asked for" else why.rstrip(".")
        yield f"only the packed engine has it, and that does not train this model: {reason}"
    if shape.stored_4bit or shape.mxfp4:
        yield "this checkpoint holds its weights in 4 bits"
    if shape.routed is not None:
        yield "this model has experts, whose products it does not cover"
    linears = (linear for kind in shape.kinds for linear in kind.linears)
    sizes = {size for linear in linears for size in (linear.inputs, *linear.outputs.values())}
    odd = sorted(size for size in sizes if size % MULTIPLE)
    if odd:
        yield f"this model has a matrix with {odd[0]} rows or columns, which is no multiple of {MULTIPLE}"


def _of_device(machine: Machine) -> Iterator[str]:
    if not machine.on_gpu:
        yield "this training would run on a CPU, which does not multiply in FP8"
    elif machine.capability is not None and machine.capability < CAPABILITY:
        has, needed = (".".join(map(str, found)) for found in (machine.capability, CAPABILITY))
        name = machine.name or "the GPU"
        yield f"{name} has compute capability {has}: FP8 needs {needed} or more (Ada, Hopper and later)"
