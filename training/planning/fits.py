"""Whether a training fits a machine at all, and which others would: by its smallest settings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from ..config.fields import EngineName, Recompute, Weights
from ..config.specs import LoraGroup, TrainingSpec, TrainSpec
from ..config.training_plan import Fit
from ..errors import GpuOutOfMemoryError
from ..models.presets import PRESETS
from ..next_step import then
from ..untrusted import shown_path
from .decoder_shape import DecoderShape, decoder_shape
from .engine_choice import engine_of
from .fp8_base import require_fp8
from .known_shapes import KNOWN, USUAL_SIZES
from .longest_example import SHORT, Longest, with_rows
from .machine import CUDA_CONTEXT, Machine, alone, shared
from .memory import GIB, TrainingMemory
from .memory_choice import (
    CPU_SLACK,
    PROCESS,
    RESERVE,
    SLACK,
    TOKENS,
    resident_on_cpu,
    room_in,
    training_memory,
)
from .model_facts import ModelFacts

COMFORTABLE_TOKENS = 2048


class Least(NamedTuple):
    """The least that a training needs.

    Args:
        bytes: of the device, with all that is not torch's, if as much as may be is elsewhere.
        host: of main memory beside that, for weights that do not fit the device.
    """

    bytes: int
    host: int


def least(
    parts: TrainingMemory, machine: Machine, *, weights: Weights = "auto", tokens: int = TOKENS[-1]
) -> Least:
    """What the smallest settings need: everything recomputed, and weights that stream if they may.

    Args:
        tokens: at a time.
    """
    if not machine.on_gpu:
        resident = resident_on_cpu(parts, weights)
        return Least(round(parts.peak(resident, "everything", tokens) * (1 + CPU_SLACK)) + PROCESS, 0)
    if not parts.exact:
        return Least(_on_card(parts.weights(None)), 0)
    if weights == "gpu":
        return Least(_on_card(parts.peak(None, "everything", tokens)), 0)
    peak = parts.peak(0, "everything", tokens)
    beside = peak - parts.weights(0)
    resident = 0 if weights == "host" else parts.most_resident(_room_on(machine) - beside)
    return Least(_on_card(peak), parts.on_host(resident))


def _room_on(machine: Machine) -> int:
    """Bytes for torch's tensors on a card that nobody else uses; none if its size is not known."""
    return room_in(max(0, machine.total_gpu_bytes - CUDA_CONTEXT))


def _on_card(peak: int) -> int:
    return round(peak * (1 + SLACK)) + RESERVE + CUDA_CONTEXT


def can_hold(need: Least, machine: Machine) -> bool:
    """Whether a machine could hold it if nothing else ran on it; what is not known is enough."""
    if not machine.on_gpu:
        return not machine.total_bytes or need.bytes <= machine.total_bytes
    fits = not machine.total_gpu_bytes or need.bytes <= machine.total_gpu_bytes
    return fits and (not machine.total_bytes or need.host <= machine.total_bytes)


def require_fit(
    spec: TrainingSpec,
    facts: ModelFacts | None,
    machine: Machine,
    find_longest: Callable[[], Longest] | None = None,
) -> None:
    """Refuse a training that no setting makes fit, or whose base cannot be in FP8 as it was asked for.

    Nothing is refused by an estimate.

    Args:
        find_longest: reads the rows; called only where `max_seq_length` tokens do not fit. None: they are not
            read yet, and only what no row is short enough for is refused.

    Raises:
        GpuOutOfMemoryError: with what would fit.
        InputError, GpuNotAvailableError: there is no FP8 for it.
    """
    if facts is None or facts.config is None:
        return
    require_fp8(spec, facts.config, facts.shape, machine)
    if can_hold(_least_of(spec, facts, machine), machine):
        return
    if find_longest is None:
        longest = SHORT
    else:
        longest = find_longest()
        spec = with_rows(spec, longest)
    need = _least_of(with_rows(spec, longest), facts, machine)
    if can_hold(need, machine):
        return
    other = smallest_change(spec, facts, machine)
    raise GpuOutOfMemoryError(
        too_large(spec, facts, machine, need, longest),
        hint=None if other else "Use a machine with more memory.",
        next=then("ask_again", **other) if other else None,
    )


def too_large(spec: TrainingSpec, facts: ModelFacts, machine: Machine, need: Least, longest: Longest) -> str:
    """Why it does not fit, in one sentence."""
    what = f"{shown_path(spec.model.name)} ({facts.shape.billions:.3g} billion weights)"
    in_4bit = " in 4 bits" if spec.model.load_in_4bit else ""
    if machine.on_gpu and need.bytes > machine.total_gpu_bytes:
        there, place = machine.total_gpu_bytes, f"the GPU ({machine.name})"
        amount = need.bytes
    else:
        there, place = machine.total_bytes, "main memory"
        if machine.here > 1:
            place = f"each of {machine.here} processes' share of main memory"
        amount = need.host if machine.on_gpu else need.bytes
    need_of = f"at least {amount / GIB:.1f} GiB with {_at_a_time(spec, longest)}"
    sizes = f"{need_of}, and {place} has {there / GIB:.1f}"
    whole = machine.here > 1 and not _may_shard(spec, facts, machine)
    each = f" Each of the {machine.together} holds the whole model." if whole else ""
    return f"{what}{in_4bit} cannot be trained here: the smallest settings need {sizes}.{each}"


def _at_a_time(spec: TrainingSpec, longest: Longest) -> str:
    tokens = _tokens(with_rows(spec, longest))
    which = f" ({longest.how})" if tokens == longest.tokens else ""
    return f"{tokens:,} tokens at a time{which}"


def _may_shard(spec: TrainingSpec, facts: ModelFacts, machine: Machine) -> bool:
    packed = engine_of(spec, facts.config or {})[0] == "packed"
    weights = spec.training.weights
    return packed and (weights == "sharded" or (machine.on_gpu and weights != "gpu"))


def _least_of(spec: TrainingSpec, facts: ModelFacts, machine: Machine) -> Least:
    engine, _ = engine_of(spec, facts.config or {})
    return least_of(spec, parts_of(spec, facts.shape, engine, machine), machine)


def least_of(spec: TrainingSpec, parts: TrainingMemory, machine: Machine) -> Least:
    """The least that a training needs, with examples as long as they may be."""
    return least(parts, machine, weights=spec.training.weights_place, tokens=_tokens(spec))


def _tokens(spec: TrainingSpec) -> int:
    """The fewest at a time, with examples as long as they may be."""
    return min(TOKENS[-1], spec.training.micro_batch_tokens or TOKENS[-1], spec.data.max_seq_length)


def parts_of(spec: TrainingSpec, shape: DecoderShape, engine: EngineName, machine: Machine) -> TrainingMemory:
    """The memory of a training by part."""
    in_4bit = spec.model.load_in_4bit
    return training_memory(
        shape, spec.lora, engine, in_4bit=in_4bit, on_gpu=machine.on_gpu, shards=machine.here
    )


def would_fit(spec: TrainingSpec, facts: ModelFacts, machine: Machine) -> Iterator[dict[str, Any]]:
    """Arguments with which it would fit, the smallest change first."""
    if spec.training.in_fp8:
        yield from _without_fp8(spec, facts, machine)
        return
    in_4bit = {"model": spec.model.model_copy(update={"load_in_4bit": True})}
    anywhere = {"training": spec.training.model_copy(update={"weights": "auto"})}
    may_quantise = machine.on_gpu and not spec.model.load_in_4bit

    def fits(change: dict[str, Any], there: Machine = machine) -> bool:
        return can_hold(_least_of(spec.model_copy(update=change), facts, there), there)

    if spec.training.weights == "gpu" and fits(anywhere):
        yield {"weights": "auto"}
    if machine.processes > 1 and fits({}, alone(machine)):
        yield {"gpus": 1}
    yield from _more_gpus(spec, facts, machine)
    if may_quantise and fits(in_4bit):
        yield {"load_in_4bit": True}
    if may_quantise and spec.training.weights == "gpu" and fits({**in_4bit, **anywhere}):
        yield {"load_in_4bit": True, "weights": "auto"}
    yield from _smaller(facts.shape, machine)


def _more_gpus(spec: TrainingSpec, facts: ModelFacts, machine: Machine) -> Iterator[dict[str, Any]]:
    """The fewest more GPUs of this machine, if they are alike, over which the weights can be sharded."""
    if not isinstance(spec, TrainSpec):
        return
    change = {"weights": "auto"} if spec.training.weights == "gpu" else {}
    training = spec.training.model_copy(update=change)
    for count in range(machine.here + 1, machine.gpus + 1):
        more = shared(alone(machine), count)
        if can_hold(_least_of(spec.model_copy(update={"training": training}), facts, more), more):
            yield {"gpus": count, **change}
            return


def _without_fp8(spec: TrainingSpec, facts: ModelFacts, machine: Machine) -> Iterator[dict[str, Any]]:
    """What fits once the base is not in FP8, in which weights neither stream nor have 4 bits."""
    auto = {"base_precision": "auto"}
    other = spec.model_copy(update={"training": spec.training.model_copy(update=auto)})
    if can_hold(_least_of(other, facts, machine), machine):
        yield auto
    for arguments in would_fit(other, facts, machine):
        yield {**arguments, **auto}


def _smaller(shape: DecoderShape, machine: Machine) -> Iterator[dict[str, Any]]:
    """The largest smaller preset in 4 bits, and the largest as it is."""
    found: dict[Fit, str] = {}
    for name, preset in PRESETS.items():
        other = decoder_shape(KNOWN[preset.hub_id])
        if other.parameters < shape.parameters:
            found[fit_of(other, machine)] = name  # they are sorted by size
    if "with load_in_4bit=true" in found:
        yield {"model": found["with load_in_4bit=true"], "load_in_4bit": True}
    if "yes" in found:
        yield {"model": found["yes"]}


def smallest_change(spec: TrainingSpec, facts: ModelFacts, machine: Machine) -> dict[str, Any]:
    """The first of `would_fit`; empty if nothing would."""
    for arguments in would_fit(spec, facts, machine):
        return arguments
    return {}


def fit_of(shape: DecoderShape, machine: Machine) -> Fit:
    """Whether a model of this shape can be fine-tuned: as it is with its weights on the GPU, or in 4 bits."""
    lora = LoraGroup()
    whole = training_memory(shape, lora, _engine(shape), in_4bit=False, on_gpu=machine.on_gpu)
    if can_hold(least(whole, machine, weights="gpu"), machine):
        return "yes"
    if not machine.on_gpu:
        return "too large"
    stored = training_memory(shape, lora, _engine(shape), in_4bit=True)
    return "with load_in_4bit=true" if can_hold(least(stored, machine), machine) else "too large"


def fits_comfortably(shape: DecoderShape, machine: Machine) -> bool:
    """Whether it trains in bf16 on the GPU without recomputing whole layers: fit for a default."""
    mode: Recompute = "gate_up"
    parts = training_memory(shape, LoraGroup(), _engine(shape), in_4bit=False)
    return machine.on_gpu and _on_card(parts.peak(None, mode, COMFORTABLE_TOKENS)) <= machine.total_gpu_bytes


def _engine(shape: DecoderShape) -> EngineName:
    return "packed" if shape.exact else "autograd"


def sizes_that_fit(machine: Machine) -> list[str]:
    """The largest of the usual sizes that trains whole, and in 4 bits, as sentences."""
    fits = {size: fit_of(decoder_shape(config), machine) for size, config in USUAL_SIZES.items()}
    told: list[str] = []
    whole = [size for size, fit in fits.items() if fit == "yes"]
    stored = [size for size, fit in fits.items() if fit == "with load_in_4bit=true"]
    if whole:
        told.append(f"of the usual sizes up to {whole[-1]}")
    if stored:
        told.append(f"in 4 bits up to {stored[-1]}")
    return told or ["of the usual sizes none"]
