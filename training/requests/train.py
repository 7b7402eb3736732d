"""The spec of a training from its arguments."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from ..config.arguments import OTHER_NAMES, flat_fields
from ..config.settings import Settings, load_settings
from ..config.specs import AnySpec, TrainingSpec, TrainSpec
from ..errors import InputError
from ..models.presets import classify_model
from ..runs.cluster_job import cluster_of
from ..runs.kinds import device_request
from .settings import by_group
from .validated import validated


def require_alone(names: Iterable[str]) -> None:
    """Refuse arguments that a resumed run would ignore; only its number of steps can be increased.

    Args:
        names: the arguments that were given with `resume`, except `steps`.

    Raises:
        InputError: there is at least one.
    """
    given = ", ".join(names)
    if given:
        raise InputError(
            f"A resumed run keeps its settings and its dataset; resume cannot be given with {given}.",
            hint="Give resume alone or with steps; leave resume out to start a new run.",
        )


def require_own(own: TrainingSpec, given: Mapping[str, Any], defaults: Settings) -> None:
    """Refuse arguments of which a resumed run has other values.

    Args:
        own: the request of the run.
        given: arguments by their flat names, with absolute paths, without `steps` and `dataset`.

    Raises:
        InputError: one differs, or is not valid.
    """
    named = {name: value for name, value in given.items() if value is not None}
    asked = train_spec(defaults, arguments={**named, "dataset": own.data.source or "none"})
    require_alone(name for name in named if _value_of(asked, name) != _value_of(own, name))


def on_gpus(spec: AnySpec, gpus: int | str) -> TrainSpec:
    """The request of a training, on another number of GPUs; one has nobody to shard weights with.

    Raises:
        InputError: it is no single training, or cannot have this number.
    """
    if not isinstance(spec, TrainSpec):
        raise InputError(f"gpus: a run of kind {spec.kind} has none to choose.", hint="Resume it without.")
    values = spec.model_dump()
    training = {**values["training"], "gpus": gpus}
    if gpus == 1 and training["weights"] == "sharded":
        training["weights"] = "auto"
    return validated(TrainSpec, {**values, "training": training})


def require_gpus(spec: AnySpec, gpus: int | str) -> int | Literal["all"]:
    """The number of GPUs on which a training is resumed.

    Raises:
        InputError: as `on_gpus`.
        GpuNotAvailableError: there are fewer.
    """
    asked = on_gpus(spec, gpus)
    if cluster_of(asked) is None:
        device_request(asked)
    return asked.training.gpus


def _value_of(spec: TrainingSpec, name: str) -> Any:
    flat = OTHER_NAMES.get(name, name)
    if flat == "output":
        return spec.output
    if flat == "model":
        return classify_model(spec.model.name).location
    group, field, _ = flat_fields()[flat]
    return getattr(getattr(spec, group), field)


def train_spec(
    defaults: Settings | None = None,
    *,
    settings: Mapping[str, Any] | None = None,
    arguments: Mapping[str, Any],
    roots: Sequence[str] | None = None,
    needs_dataset: bool = True,
) -> TrainSpec:
    """The spec of a training run.

    Args:
        defaults: the values of settings that are not given.
        settings: more settings, by group (`{"lora": {"dropout": 0.1}}`) or by flat name.
        arguments: settings by their flat names (`TrainArguments`); None means not given. They override groups
            in `settings`.
        roots: see `Spec`.
        needs_dataset: False for a training that is only planned.

    Raises:
        InputError: an unknown name (with the nearest known one), a value out of bounds, or a secret.
    """
    groups = by_group(defaults or load_settings(), settings or {}, arguments)
    return validated(TrainSpec, {**groups, "roots": roots}, needs_dataset=needs_dataset)
