"""What earlier runs on this machine have shown: speed and peak, beside what the formulas say of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from ..config.results import ProbeResult, TrainResult
from ..config.specs import LoraGroup
from ..errors import BackpropagateError
from ..events import Step
from ..runs.folder import RunFolder, RunState, Status
from ..runs.identity import same_host
from ..runs.store import RunStore
from .decoder_shape import folder_shape
from .gpu_cards import Card, card_named
from .machine import Machine
from .memory_choice import training_memory
from .speed import Work, tokens_per_s

LOOKED_AT, KEPT = 200, 20
"""Newest completed runs that are looked at, and those of trainings on this device that are compared."""
CHANGED_BY = 3.0
"""A run whose speed differs by more from the formula's is of no use for another model."""
SIZE_CLASS = 8
"""Models whose sizes differ by more are slow for different reasons."""
SHARED = 0.95
"""Of what each of several GPUs reaches alone: 0.98 of two H100 with a 7B, 0.92 and 0.97 of four; of more it
is an allowance."""
ANY_CARD = Card(300, 1.5)
"""Of a card that is in no table: only the ratio to what was measured counts."""


class Measured(NamedTuple):
    """A run, and how it compares.

    Args:
        speed: measured tokens per second / those of the formula.
        memory: measured peak / that of the arithmetic; None where it is not known.
        beside_s: seconds that were not training: starting, loading, evaluating, saving; None of a probe.
    """

    run_id: str
    subject: str
    work: Work
    speed: float
    memory: float | None
    beside_s: float | None


class Estimate(NamedTuple):
    """A number, and how sure it is.

    Args:
        how: as part of a sentence.
        run: that it was measured in or is scaled from.
    """

    value: float
    how: str
    run: str | None = None


def earlier_runs(store: RunStore, machine: Machine) -> list[Measured]:
    """The newest trainings and probes that were completed on this device."""
    return list(islice(_comparable(store, machine), KEPT))


def _comparable(store: RunStore, machine: Machine) -> Iterator[Measured]:
    for run, state in islice(store.newest(Status.COMPLETED), LOOKED_AT):
        if isinstance(state, RunState) and same_host(state.host):
            # What cannot be read, and models that are gone, say nothing.
            with suppress(BackpropagateError, OSError, ValueError, KeyError, TypeError):
                found = _measured(run, state, machine)
                if found is not None:
                    yield found


def _measured(run: RunFolder, state: RunState, machine: Machine) -> Measured | None:
    result, plan = state.result, run.plan()
    if not isinstance(result, TrainResult | ProbeResult) or plan is None or result.device != machine.device:
        return None
    if result.device_name != machine.name:
        return None
    rate = result.tokens_per_s if isinstance(result, ProbeResult) else _last_rate(run) or result.tokens_per_s
    if not rate:
        return None
    work = _work_of(plan, result)
    modelled = tokens_per_s(work, card_of(machine), int(plan.get("threads") or 1))
    planned = plan.get("planned_peak_mib")
    peak = result.peak_memory_mib / planned if planned and result.peak_memory_mib else None
    return Measured(run.run_id, state.subject or "", work, rate / modelled, peak, _beside(state, rate))


def _last_rate(run: RunFolder) -> float | None:
    """Of the last steps, when everything is compiled and warm."""
    rates = [event.tokens_per_s for event in run.latest_events() if isinstance(event, Step)]
    return rates[-1] if rates else None


def _work_of(plan: Mapping[str, Any], result: TrainResult | ProbeResult) -> Work:
    shape = folder_shape(Path(plan["model"]))
    packing = result.packing
    tokens = (
        packing.tokens / packing.micro_batches_per_epoch if packing else float(plan["micro_batch_tokens"])
    )
    in_4bit = bool(plan["load_in_4bit"])
    return Work(
        shape=shape,
        engine=plan["engine"],
        in_4bit=in_4bit,
        in_fp8=plan.get("base_precision") == "fp8",
        recompute=plan["recompute"],
        resident=plan.get("resident_layers"),
        tokens=tokens,
        seen=packing.tokens / packing.examples / 2 if packing else None,
        labels=result.trained_token_share or None,
        stored=training_memory(shape, LoraGroup(), plan["engine"], in_4bit=in_4bit).layer,
        sharded=plan.get("resident_layers") is not None and plan.get("gpus", 1) > 1,
    )


def _beside(state: RunState, rate: float) -> float | None:
    result = state.result
    if (
        not isinstance(result, TrainResult)
        or not result.packing
        or not state.started_at
        or not state.ended_at
    ):
        return None
    spent = datetime.fromisoformat(state.ended_at) - datetime.fromisoformat(state.started_at)
    tokens = result.packing.tokens / result.packing.steps_per_epoch * result.steps
    return max(0.0, spent.total_seconds() - tokens / rate)


def card_of(machine: Machine) -> Card | None:
    """What is known of a machine's card; None is a CPU."""
    return (card_named(machine.name) or ANY_CARD) if machine.on_gpu else None


def speed_of(
    work: Work, subject: str, machine: Machine, threads: int, runs: list[Measured]
) -> Estimate | None:
    """Tokens per second; None if nothing is known of the card and no run has shown it."""
    modelled = tokens_per_s(work, card_of(machine), threads)
    same = [run for run in runs if run.subject == subject and _alike(run.work, work)]
    if same:
        return Estimate(modelled * same[0].speed, "measured on this machine", same[0].run_id)
    near = [run for run in runs if _near(run, work)]
    if near:
        run = min(near, key=lambda one: _distance(one.work, work))
        which = "another setting of this model" if run.subject == subject else "another model"
        return Estimate(modelled * run.speed, f"scaled from {which} on this device", run.run_id)
    if machine.on_gpu and card_named(machine.name) is None:
        return None
    source = "the card's data sheet" if machine.on_gpu else "what a core usually reaches"
    return Estimate(modelled, f"a rough estimate from {source}")


def together(one: Estimate, machine: Machine) -> Estimate:
    """The speed of the processes that share each step, from that of one."""
    if machine.processes == 1:
        return one
    how = f"{SHARED:.0%} of {machine.together} alone: {one.how}"
    return one._replace(value=one.value * machine.processes * SHARED, how=how)


def memory_factor(work: Work, subject: str, runs: list[Measured]) -> Measured | None:
    """An earlier run of this model with these settings, whose peak is known."""
    same = (run for run in runs if run.subject == subject and run.memory and _alike(run.work, work))
    return next(same, None)


def beside_steps(subject: str, runs: list[Measured]) -> Estimate | None:
    """Seconds of a run that are not training, as the newest run of the model had them."""
    found = next((run for run in runs if run.subject == subject and run.beside_s is not None), None)
    return (
        None if found is None else Estimate(found.beside_s or 0.0, "measured on this machine", found.run_id)
    )


def _alike(one: Work, other: Work) -> bool:
    return _setting(one) == _setting(other)


def _setting(work: Work) -> tuple[object, ...]:
    weights = work.in_4bit, work.in_fp8, work.resident is None, work.sharded
    return work.shape, work.engine, work.recompute, *weights


def _near(run: Measured, work: Work) -> bool:
    """Whether a run of another model or setting says anything of this one."""
    sizes = sorted((run.work.shape.parameters, work.shape.parameters))
    usual = 1 / CHANGED_BY < run.speed < CHANGED_BY
    return run.work.engine == work.engine and usual and sizes[1] <= SIZE_CLASS * sizes[0]


def _distance(one: Work, other: Work) -> float:
    """How different two trainings are, first of all their sizes."""
    larger = max(one.shape.parameters, other.shape.parameters)
    smaller = min(one.shape.parameters, other.shape.parameters)
    bits = (one.in_4bit, one.in_fp8) != (other.in_4bit, other.in_fp8)
    return larger / smaller + bits + (one.recompute != other.recompute)
