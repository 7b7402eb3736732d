"""The kinds of run: spec, result, queue, libraries and next step of each.

A new kind is a row here and a few files elsewhere: docs/architecture.md lists them, tests/runs/test_kinds.py
checks them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from ..config.arguments import flat_fields, given_arguments
from ..config.results import (
    AnyResult,
    EvaluateResult,
    ExportResult,
    GenerateResult,
    InspectResult,
    MultiRunResult,
    ProbeResult,
    PushResult,
    RegisterResult,
    Result,
    TrainingResult,
    TrainResult,
)
from ..config.specs import (
    AnySpec,
    EvaluateSpec,
    ExportSpec,
    GenerateSpec,
    InspectSpec,
    KindName,
    MultiRunSpec,
    ProbeSpec,
    PushSpec,
    RegisterSpec,
    Spec,
    TrainingSpec,
    TrainSpec,
)
from ..errors import StateError
from ..hardware.devices import CPU, number_of_gpus, training_devices
from ..next_step import Next, then
from ..untrusted import quoted
from .device_queue import DeviceRequest

EXTRAS = {
    "torch": "train",
    "huggingface_hub": "train",
    "tokenizers": "train",
    "bitsandbytes": "quantized",
}
"""Library → the extra of this package that installs it."""

SHORT_PLACES = ["short-1", "short-2"]
"""The slots of the short queue, for runs that need no device."""


@dataclass(frozen=True)
class RunKind:
    """One kind of run.

    Args:
        name: also the name of the next step that starts such a run, and of the module in `training.worker`
            with `run(context, wait_for_device)`.
        queue: `device` waits for the device that the spec names, `cpu` for the CPU, `short` for neither.
        subject: the label of the spec's `subject`, one word.
        libraries: the optional libraries that the worker imports; see `EXTRAS`.
        listed: whether lists of runs show it when it has ended.
        lasting: whether an equal request returns a completed run while its data are unchanged, and not only
            for two minutes; old runs of such a kind are removed automatically.
        checkpoints: whether a later attempt continues from a checkpoint instead of starting again.
        after: the next step after a completed run, given its id, spec and result.
    """

    name: KindName
    spec: type[Spec]
    result: type[Result]
    queue: Literal["device", "cpu", "short"]
    after: Callable[[str, Any, Any], Next | None]
    subject: str = "model"
    libraries: tuple[str, ...] = ("torch",)
    listed: bool = True
    lasting: bool = False
    checkpoints: bool = False

    @property
    def needs_device(self) -> bool:
        return self.queue != "short"


def _after_training(run_id: str, spec: TrainSpec, result: TrainResult) -> Next:
    if result.still_falling:
        return then("train", resume=run_id, steps=2 * result.total_steps)
    return export_of(run_id, result)


def _after_multi_run(run_id: str, spec: MultiRunSpec, result: MultiRunResult) -> Next:
    return export_of(run_id, result)


def export_of(run_id: str, result: TrainingResult | GenerateResult | EvaluateResult) -> Next:
    """The export that a training's model can have, by its result or that of a run that asked the model."""
    return then("export", source=run_id, **({"format": "merged"} if result.no_gguf else {}))


def _after_probe(run_id: str, spec: ProbeSpec, result: ProbeResult) -> Next:
    return _training_as_asked(spec)


def _after_export(run_id: str, spec: ExportSpec, result: ExportResult) -> Next:
    if result.path.endswith(".gguf"):
        return then("register", path=result.path, name=...)
    return then("load_model", path=result.path)


def _after_answers(run_id: str, spec: GenerateSpec, result: GenerateResult) -> Next | None:
    return export_of(spec.run, result) if spec.run else None


def _after_evaluation(run_id: str, spec: EvaluateSpec, result: EvaluateResult) -> Next | None:
    return export_of(spec.run, result) if spec.run and result.verdict == "better" else None


def _after_registration(run_id: str, spec: RegisterSpec, result: RegisterResult) -> Next:
    return then("chat_in_ollama", name=spec.name)


def _after_inspection(run_id: str, spec: InspectSpec, result: InspectResult) -> Next:
    return _training_as_asked(spec)


def _training_as_asked(spec: ProbeSpec | InspectSpec) -> Next:
    defaults = {
        name: info.get_default(call_default_factory=True) for name, (*_, info) in flat_fields().items()
    }
    # A spec that was written and read again has everything.
    given = {name: value for name, value in given_arguments(spec).items() if value != defaults[name]}
    return then("train", **{"dataset": spec.data.source, "model": spec.model.name, **given})


def _nothing(run_id: str, spec: PushSpec, result: PushResult) -> None:
    return None


KINDS = {
    kind.name: kind
    for kind in (
        RunKind("train", TrainSpec, TrainResult, "device", _after_training, checkpoints=True),
        RunKind("multi_run", MultiRunSpec, MultiRunResult, "device", _after_multi_run, checkpoints=True),
        RunKind("probe", ProbeSpec, ProbeResult, "device", _after_probe, listed=False),
        RunKind(
            "inspect",
            InspectSpec,
            InspectResult,
            "short",
            _after_inspection,
            libraries=("tokenizers",),
            listed=False,
            lasting=True,
        ),
        RunKind("export", ExportSpec, ExportResult, "cpu", _after_export),
        RunKind(
            "generate",
            GenerateSpec,
            GenerateResult,
            "device",
            _after_answers,
            listed=False,
            lasting=True,
        ),
        RunKind("evaluate", EvaluateSpec, EvaluateResult, "device", _after_evaluation),
        RunKind(
            "register",
            RegisterSpec,
            RegisterResult,
            "short",
            _after_registration,
            subject="name",
            libraries=(),
            listed=False,
        ),
        RunKind(
            "push",
            PushSpec,
            PushResult,
            "short",
            _nothing,
            subject="repo",
            libraries=("huggingface_hub",),
            listed=False,
        ),
    )
}
"""Name → kind."""


def kind_of(name: str) -> RunKind:
    """The kind of this name.

    Raises:
        StateError: this version does not have it.
    """
    if name not in KINDS:
        raise StateError(
            f"{quoted(name)} is not a kind of run in this version ({', '.join(KINDS)}).",
            hint="Use the version of backpropagate that created the run.",
        )
    return KINDS[name]


def device_request(spec: AnySpec) -> DeviceRequest:
    """The queue and the slots of a run.

    Raises:
        GpuNotAvailableError: a GPU is requested and none is usable, or more than there are.
    """
    match kind_of(spec.kind).queue:
        case "short":
            return DeviceRequest("short", SHORT_PLACES)
        case "cpu":
            return DeviceRequest("cpu", [CPU])
        case "device":
            device = _device_of(spec)
            devices = training_devices(device)
            processes = number_of_gpus(gpus_of(spec), device, devices)
            return DeviceRequest("cpu" if devices == [CPU] else "cuda", devices, processes)


def gpus_of(spec: Spec) -> int | Literal["all"]:
    """Only trainings are shared: a probe measures one GPU."""
    return spec.training.gpus if isinstance(spec, TrainSpec) else 1


def _device_of(spec: AnySpec) -> Literal["auto", "cpu", "cuda"]:
    match spec:
        case TrainingSpec():
            return spec.training.device
        case GenerateSpec() | EvaluateSpec():
            return spec.device
        case _:
            raise StateError(f"A run of kind {spec.kind} waits for a device, but its spec names none.")


def libraries_of(spec: AnySpec) -> list[str]:
    """The libraries from extras that the worker of this spec imports, as far as the spec tells.

    Whether a model in 4 bits needs bitsandbytes depends on its family, which only its folder tells.
    """
    by_transformers = (
        isinstance(spec, TrainingSpec)
        and spec.model.load_in_4bit
        and spec.training.engine in ("autograd", "trl")
    )
    return [*kind_of(spec.kind).libraries, *(["bitsandbytes"] if by_transformers else [])]


def next_after(run_id: str, spec: AnySpec, result: AnyResult | None) -> Next | None:
    """The next step after a completed run; None if there is none."""
    return None if result is None else kind_of(spec.kind).after(run_id, spec, result)
