"""The plan of a training before anything is downloaded: whether and how it fits, and how long it takes."""

from __future__ import annotations

from typing import Any

from ..config.arguments import given_arguments
from ..config.specs import TrainingSpec
from ..config.training_plan import TrainingPlan
from ..errors import ModelLoadError
from ..next_step import Next, then
from ..runs.store import RunStore
from ..untrusted import quoted, shown_path
from .choices import Choices, choose, in_4bit, work_of
from .data_facts import DataFacts
from .disk import disk_of
from .duration import long_evaluation, seconds_of
from .fits import (
    can_hold,
    least_of,
    parts_of,
    sizes_that_fit,
    smallest_change,
    too_large,
    would_fit,
)
from .longest_example import longest_allowed, longest_found, with_rows
from .machine import CUDA_CONTEXT, Machine, left_of
from .measured import Estimate, Measured, beside_steps, earlier_runs, memory_factor, speed_of, together
from .memory import GIB
from .memory_choice import PROCESS, RESERVE, SLACK, TOKENS, placed
from .model_facts import ModelFacts, model_facts
from .speed import launching_s


def plan_training(
    spec: TrainingSpec,
    store: RunStore,
    machine: Machine,
    data: DataFacts,
    *,
    four_bit_is_given: bool = True,
    ask_hub: bool = True,
) -> TrainingPlan:
    """Plan a training. Reads config.json and earlier runs; takes no device and loads no model.

    Args:
        four_bit_is_given: whether the user has decided on load_in_4bit; else the plan does.

    Raises:
        ModelLoadError: nothing is known of the model.
    """
    facts = model_facts(spec.model, store.home / "models", ask_hub=ask_hub)
    if facts is None:
        raise ModelLoadError(
            f"Nothing is known of the size of {shown_path(spec.model.name)}: its config.json cannot be had.",
            hint="Give the folder of the model, or try again with a network.",
        )
    why_4bit = None
    if not four_bit_is_given and not spec.model.load_in_4bit:
        spec, why_4bit = _smaller_weights(spec, facts, machine, data)
    made = choose(spec, _config(facts), facts.shape, machine, data)
    return _Plan(spec, facts, machine, data, made, earlier_runs(store, machine)).described(why_4bit)


def _config(facts: ModelFacts) -> dict[str, Any]:
    """Of a model of which only the size is known, that of a usual one."""
    return dict(facts.config or {"model_type": "llama", "hidden_size": facts.shape.hidden_size})


def _smaller_weights(
    spec: TrainingSpec, facts: ModelFacts, machine: Machine, data: DataFacts
) -> tuple[TrainingSpec, str | None]:
    """4 bits, if whole weights do not all fit the GPU and nothing else was asked for."""
    training = spec.training
    place = training.weights in ("host", "sharded")
    if not machine.on_gpu or facts.shape.stored_4bit or place or training.in_fp8:
        return spec, None
    made = choose(spec, _config(facts), facts.shape, machine, data)
    if made.memory.fits and made.memory.resident_layers is None:
        return spec, None
    return in_4bit(spec), "whole weights do not fit what is free of the GPU"


class _Plan:
    """One plan, part by part."""

    def __init__(
        self,
        spec: TrainingSpec,
        facts: ModelFacts,
        machine: Machine,
        data: DataFacts,
        made: Choices,
        runs: list[Measured],
    ) -> None:
        self._spec, self._facts, self._machine, self._data = spec, facts, machine, data
        self._made, self._runs = made, runs
        self._longest = longest_found(data.longest) if data.longest else longest_allowed(spec)
        self._of_rows = with_rows(spec, self._longest)
        self._per_example = made.batches.mean or float(TOKENS[0])
        self._work = work_of(spec, facts.shape, made, machine.processes)

    def described(self, why_4bit: str | None) -> TrainingPlan:
        made, machine = self._made, self._machine
        parts, peak_from = self._memory()
        peak = sum(parts.values())
        free = machine.free_gpu_bytes + CUDA_CONTEXT if machine.on_gpu else machine.free_bytes
        of_engine = parts_of(self._spec, self._facts.shape, made.engine, machine)
        need = least_of(self._of_rows, of_engine, machine)
        possible = can_hold(need, machine)
        fits = possible and (peak <= free or not free) and self._host_fits()
        speed = self._speed()
        reasons = made.reasons | ({"load_in_4bit": why_4bit} if why_4bit else {})
        return TrainingPlan(
            fits=fits,
            possible=possible,
            why_not=None if fits else self._why_not(possible, peak, free, need),
            model=self._spec.model.name,
            model_from=self._facts.how,
            billions=float(f"{self._facts.shape.billions:.4g}"),
            device=machine.name or machine.device,
            data=self._data_sentence(),
            settings=self._settings(),
            reasons=reasons,
            memory_gib={name: round(part / GIB, 2) for name, part in parts.items()},
            peak_gib=round(peak / GIB, 2),
            free_gib=round(free / GIB, 2),
            peak_from=peak_from,
            tokens_per_s=None if speed is None else round(speed.value, 1),
            speed_from="not known for this card: a probe measures it" if speed is None else _told(speed),
            hours=self._hours(speed),
            disk_gb=disk_of(self._facts, self._spec, self._data),
            would_fit=self._would_fit(fits),
            notes=self._notes(),
            next=self._next(fits, possible),
        )

    def _memory(self) -> tuple[dict[str, int], str]:
        """The peak by part, and how sure it is."""
        made, machine = self._made, self._machine
        memory = made.memory
        parts = made.parts.parts(memory.resident_layers, memory.recompute, *memory.batch)
        if machine.on_gpu:
            beside = (memory.peak or 0) - sum(parts.values())
            slack = round(SLACK * (memory.peak or 0))
            parts |= {"graphs_or_evaluation": max(0, beside), "allocator_slack": slack}
            parts["cuda_and_kernels"] = CUDA_CONTEXT + RESERVE
        else:
            parts["process"] = PROCESS
            parts["allocator_slack"] = max(0, (memory.peak or 0) - sum(parts.values()))
        seen = memory_factor(self._work, self._spec.subject, self._runs)
        if seen is not None and seen.memory and not (machine.on_gpu and made.parts.exact):
            scaled = {name: round(part * seen.memory) for name, part in parts.items()}
            return scaled, f"scaled to what run {seen.run_id} used"
        return parts, "counted part by part" if made.parts.exact else "an estimate for this engine"

    def _host_fits(self) -> bool:
        need = self._made.parts.on_host(self._made.memory.resident_layers)
        return not self._machine.on_gpu or not self._machine.free_bytes or need <= self._machine.free_bytes

    def _why_not(self, possible: bool, peak: int, free: int, need: Any) -> str:
        if not possible:
            return too_large(self._spec, self._facts, self._machine, need, self._longest)
        held = f" ({self._machine.held})" if self._machine.held else ""
        if peak > free:
            return f"It needs {peak / GIB:.1f} GiB, and {free / GIB:.1f} are free{held}."
        return "The weights that stream do not fit what is free of main memory."

    def _settings(self) -> dict[str, Any]:
        made, spec = self._made, self._spec
        memory, on_gpu = made.memory, self._machine.on_gpu
        flash = on_gpu and made.engine == "packed"
        several = {"gpus": self._machine.processes} if self._machine.processes > 1 else {}
        return {
            "engine": made.engine,
            **several,
            "precision": "bf16" if on_gpu else "fp32",
            **({"base_precision": "fp8"} if spec.training.in_fp8 else {}),
            "load_in_4bit": spec.model.load_in_4bit,
            "weights": self._weights(),
            "recompute": memory.recompute,
            "micro_batch_tokens": memory.micro_batch_tokens,
            "largest_micro_batch": memory.batch.tokens,
            "batch_size": made.batch_size,
            "gradient_accumulation_steps": made.accumulation,
            "steps": made.steps,
            "epochs": None if spec.training.steps else made.epochs,
            "learning_rate": made.learning_rate,
            "lora_r": spec.lora.r,
            "lora_alpha": spec.lora.alpha,
            "lora_target_modules": spec.lora.target_modules,
            "preset": spec.training.preset,
            "lora_preset": spec.lora.preset,
            "attention": "FlashAttention, packed" if flash else "scaled_dot_product_attention",
        }

    def _weights(self) -> str:
        """Where they are."""
        parts, resident = self._made.parts, self._made.memory.resident_layers
        if resident is not None and parts.shards > 1:
            return placed(parts, resident, "GPUs" if self._machine.on_gpu else "processes")
        if not self._machine.on_gpu:
            return "in main memory"
        return f"{parts.layers if resident is None else resident} of {parts.layers} layers on the GPU"

    def _speed(self) -> Estimate | None:
        threads = self._spec.training.threads or self._machine.threads
        one = speed_of(self._work, self._spec.subject, self._machine, threads, self._runs)
        return one if one is None else together(one, self._machine)

    def _hours(self, speed: Estimate | None) -> float | None:
        """Of the whole run: starting, loading, evaluating, training, judging."""
        made = self._made
        if speed is None or made.steps is None or not speed.value or not self._data.tokens:
            return None
        seconds = seconds_of(
            self._machine.device,
            tokens=made.steps * made.batch_size * made.accumulation * self._per_example,
            held_out=self._data.held_out * self._per_example,
            rate=speed.value,
            stored=self._facts.stored,
            beside=beside_steps(self._spec.subject, self._runs),
            launching=made.memory.before_graphs * launching_s(self._work),
        )
        return seconds / 3600

    def _data_sentence(self) -> str:
        data = self._data
        if data.examples is None:
            return f"Not known: {data.how}."
        tokens = f", about {data.tokens:,.0f} tokens" if data.tokens else ""
        return f"{data.examples:,} examples to train on{tokens}, {data.held_out:,} held out ({data.how})."

    def _would_fit(self, fits: bool) -> list[str]:
        told = (
            []
            if fits
            else [
                ", ".join(f"{name}={_value(value)}" for name, value in arguments.items())
                for arguments in would_fit(self._of_rows, self._facts, self._machine)
            ]
        )
        return [*told, *sizes_that_fit(self._machine)]

    def _notes(self) -> list[str]:
        notes: list[str] = []
        if cluster := self._spec.training.on:
            notes.append(f"This is for this machine, and not for the nodes of {quoted(cluster)}.")
        if self._facts.folder is None:
            notes.append(f"The model has to be downloaded: {self._facts.download / 1e9:.3g} GB.")
        if not self._made.parts.exact:
            notes.append(f"Memory and time with the {self._made.engine} engine are estimates.")
        streamed = self._made.parts.on_host(self._made.memory.resident_layers) * self._machine.here
        if self._machine.processes > 1:
            notes.append(f"The memory is that of each of {self._machine.together}.")
        if streamed and self._machine.on_gpu:
            notes.append(f"Weights that are not on a GPU take {streamed / GIB:.1f} GiB of main memory.")
        made, data = self._made, self._data
        if made.steps is not None and data.examples is not None:
            trained = made.steps * made.batch_size * made.accumulation
            notes += long_evaluation(trained, data.held_out, data.examples + data.held_out)
        return notes

    def _next(self, fits: bool, possible: bool) -> Next:
        """The training as it is planned, or the plan of the smallest change that fits what is there now."""
        spec = self._spec
        given = given_arguments(spec)
        given = {"dataset": spec.data.source or ..., "model": spec.model.name, **given}
        machine = self._machine if not possible else left_of(self._machine)
        other = {} if fits else smallest_change(self._of_rows, self._facts, machine)
        if possible and not other:
            return then("train", **given)
        without = {name: value for name, value in given.items() if name != "load_in_4bit"}
        return then("plan", **{**without, **other})


def _told(speed: Estimate) -> str:
    return f"{speed.how} in run {speed.run}" if speed.run else speed.how


def _value(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
