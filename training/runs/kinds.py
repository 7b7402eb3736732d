"""Every kind of run once: spec, result, queue, libraries, and what comes next.

A new kind is a row here, its spec and result in `config`, and a file each in `requests`, `worker`, `tools`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from ..config.results import (
    AnyResult,
    ExportResult,
    InspectResult,
    PushResult,
    RegisterResult,
    Result,
    TrainResult,
)
from ..config.specs import (
    AnySpec,
    DataSpec,
    ExportSpec,
    InspectSpec,
    KindName,
    PushSpec,
    RegisterSpec,
    Spec,
    TrainSpec,
)
from ..errors import StateError
from ..hardware.devices import CPU, training_devices
from ..next_step import Next, then
from .device_queue import DeviceRequest

EXTRAS = {
    "torch": "train",
    "huggingface_hub": "train",
    "tokenizers": "train",
    "bitsandbytes": "quantized",
}
"""Library → the extra of this package that installs it."""

SHORT_PLACES = ["short-1", "short-2"]
"""The places of the short queue: runs that need no device and do not wait behind those that do."""


@dataclass(frozen=True)
class RunKind:
    """One kind of run.

    Args:
        name: also of the next step that starts such a run, and of the module in `training.worker` whose
            `run(context, wait_for_device)` carries it out.
        queue: `device` waits for the device that the spec names, `cpu` for the CPU, `short` for neither.
        subject: what the spec's `subject` is, in one word.
        libraries: what the worker imports; see `EXTRAS`.
        listed: whether users mean it when they say "run".
        lasting: whether an equal request finds a completed run for as long as its data are unchanged, and not
            for two minutes only; old runs of such a kind are removed by themselves.
        checkpoints: whether a later attempt continues from a checkpoint and does not start again.
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


def _after_training(run_id: str, spec: TrainSpec, result: TrainResult) -> Next:
    return then("export", source=run_id)


def _after_export(run_id: str, spec: ExportSpec, result: ExportResult) -> Next:
    if result.path.endswith(".gguf"):
        return then("register", path=result.path, name=...)
    return then("load_model", path=result.path)


def _after_registration(run_id: str, spec: RegisterSpec, result: RegisterResult) -> Next:
    return then("chat_in_ollama", name=spec.name)


def _after_inspection(run_id: str, spec: InspectSpec, result: InspectResult) -> Next:
    return then("train", dataset=spec.data.source, model=spec.model.name)


def _nothing(run_id: str, spec: PushSpec, result: PushResult) -> None:
    return None


KINDS = {
    kind.name: kind
    for kind in (
        RunKind("train", TrainSpec, TrainResult, "device", _after_training, checkpoints=True),
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
        StateError: it is not one of this version's.
    """
    if name not in KINDS:
        raise StateError(
            f"{name!r} is not a kind of run that this version knows ({', '.join(KINDS)}).",
            hint="Use the version of backpropagate that made the run.",
        )
    return KINDS[name]


def device_request(spec: AnySpec) -> DeviceRequest:
    """What a run has to wait for.

    Raises:
        GpuNotAvailableError: a GPU is wanted and there is none.
    """
    match kind_of(spec.kind).queue:
        case "short":
            return DeviceRequest("short", SHORT_PLACES)
        case "device" if isinstance(spec, TrainSpec):
            devices = training_devices(spec.training.device)
            return DeviceRequest("cpu" if devices == [CPU] else "cuda", devices)
        case _:
            return DeviceRequest("cpu", [CPU])


def libraries_of(spec: AnySpec) -> list[str]:
    """What the worker of this spec imports and an extra installs."""
    quantized = isinstance(spec, DataSpec) and spec.model.load_in_4bit
    return [*kind_of(spec.kind).libraries, *(["bitsandbytes"] if quantized else [])]


def next_after(run_id: str, spec: AnySpec, result: AnyResult | None) -> Next | None:
    """The next step after a completed run; None if there is nothing to do but to tell the user."""
    return None if result is None else kind_of(spec.kind).after(run_id, spec, result)
