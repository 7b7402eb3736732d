"""The plan of a run in its worker: the choices of `planning`, for the model, the data and the GPU here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..config.specs import TrainingSpec
from ..files.atomic_json import read_json
from ..hardware.neighbours import held_by_others
from ..planning.choices import choose
from ..planning.data_facts import DataFacts
from ..planning.decoder_shape import decoder_shape
from ..planning.machine import Machine, least_free_bytes, number_of_shards, shared, this_cpu
from .device import device_name, free_gpu_bytes, gpu_capability, torch_device
from .packed.open_decoder import stored_layer_bytes
from .plan import Plan
from .select_engine import require_readable


def this_machine(threads: int, processes: Sequence[int] = (1,), devices: Sequence[str] = ()) -> Machine:
    """This machine, with the device that torch sees.

    Args:
        processes: of each host that share each step, this one's first.
        devices: the GPUs of those of this host; the fullest decides.
    """
    shards = number_of_shards(processes)
    if torch_device() == "cpu":
        machine = shared(replace(this_cpu(), threads=threads), processes[0])
        return replace(machine, processes=sum(processes), here=shards)
    others = least_free_bytes(devices[1:])
    free = free_gpu_bytes() if others is None else min(free_gpu_bytes(), others)
    main_memory = this_cpu().free_bytes // processes[0]
    machine = Machine(
        "cuda", free, threads, held_by_others(),
        name=device_name(), free_bytes=main_memory, capability=gpu_capability(),
    )  # fmt: skip
    return replace(machine, processes=sum(processes), here=shards)


def choose_plan(
    spec: TrainingSpec,
    machine: Machine,
    *,
    examples: int,
    held_out: int,
    model: Path,
    adapter: Path,
    base_model_name: str,
    continue_from: Path | None,
    lengths: Sequence[int] | None = None,
    trained_share: float | None = None,
) -> tuple[Plan, dict[str, str]]:
    """The plan, and why each choice was made.

    Args:
        examples, held_out: numbers of training and held-out examples.
        adapter: folder that the engine writes.
        base_model_name: what the adapter says it belongs to.
        lengths: of the training examples in tokens; None: the largest micro-batches that are allowed.
        trained_share: of the tokens, those with a loss.

    Raises:
        ModelLoadError: the config or the weights cannot be read.
    """
    require_readable(model)
    config = read_json(model / "config.json")
    shape = decoder_shape(config)
    layer = stored_layer_bytes(model) if shape.stored_4bit and shape.exact else None
    data = DataFacts(examples, held_out, lengths, trained_share, "the examples themselves")
    made = choose(spec, config, shape, machine, data, layer=layer)
    decided = {
        "engine": made.engine,
        "recompute": made.memory.recompute,
        "batch_size": made.batch_size,
        "gradient_accumulation_steps": made.accumulation,
        "epochs": made.epochs,
        "learning_rate": made.learning_rate,
        "learning_rate_multiplier": 1.0,  # it is in the rate
        "micro_batch_tokens": made.memory.micro_batch_tokens,
        "device": machine.device,
        "gpus": machine.processes,
        "threads": spec.training.threads or machine.threads,
    }
    plan = Plan(
        model=model,
        adapter=adapter,
        load_in_4bit=spec.model.load_in_4bit,
        data=spec.data,
        lora=spec.lora,
        training=spec.training.model_copy(update=decided),
        evaluation=spec.evaluation,
        base_model_name=base_model_name,
        reason=made.why_engine,
        continue_from=continue_from,
        resident_layers=made.memory.resident_layers,
        planned_peak_mib=None if made.memory.peak is None else made.memory.peak // 2**20,
        precision="bfloat16" if machine.on_gpu else "float32",
    )
    return plan, made.reasons
