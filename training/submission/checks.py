"""What is refused before there is a run: models, links, libraries, and trainings that cannot fit."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..config.settings import Settings
from ..config.specs import (
    AnySpec,
    DataSpec,
    EvaluateSpec,
    InspectSpec,
    ModelGroup,
    ModelReference,
    ModelSpec,
    TrainingSpec,
)
from ..errors import ClusterError, GpuMonitoringError, MissingExtraError, ModelLoadError
from ..files.paths import PathPolicy
from ..models.llama_like import check_target_modules
from ..models.model_folder import require_small_files
from ..models.presets import classify_model
from ..runs.cluster_job import cluster_of
from ..runs.kinds import EXTRAS, gpus_of, libraries_of
from ..trackers.choice import require_installed
from ..worker.submit_job import require_cluster


def checked(spec: AnySpec, settings: Settings, principal: str | None) -> AnySpec:
    """The spec with absolute model folders, as the worker has another working folder.

    Args:
        principal: who asks; None: the owner of the home.

    Raises:
        BackpropagateError: it could not be carried out; the worker would say the same later.
    """
    spec = _with_absolute_models(spec)
    permit_links(spec, PathPolicy.from_record(spec.roots, settings.home))
    _check_target_modules(spec)
    if (cluster := cluster_of(spec)) is not None:
        if principal is not None:
            raise ClusterError(
                "A cluster works in the name of the owner of this server, who alone may use it.",
                hint="Leave on out: the server's own machine then trains.",
            )
        require_cluster(cluster, settings)
        return spec
    if settings.python is None:  # another interpreter cannot be asked
        _require_libraries(spec)
    _require_fit(spec, settings)
    return spec


def absolute(model: ModelGroup, *, weights: bool = True) -> ModelGroup:
    """The model with an absolute folder, if it is one."""
    source = classify_model(model.name, weights=weights)
    return model.model_copy(update={"name": source.location}) if source.kind == "folder" else model


def models_of(spec: AnySpec) -> Sequence[DataSpec | ModelReference]:
    """What names the models that a run reads."""
    if isinstance(spec, EvaluateSpec):
        return spec.models
    return [spec] if isinstance(spec, DataSpec | ModelSpec) else []


def permit_links(spec: AnySpec, policy: PathPolicy) -> None:
    """Check the links of a local model before any of its files is read; the worker checks them again."""
    for one in models_of(spec):
        source = classify_model(one.model.name, weights=False)
        if source.kind == "folder":
            policy.permit_links(Path(source.location), "model")
            require_small_files(Path(source.location))


def _with_absolute_models(spec: AnySpec) -> AnySpec:
    if not isinstance(spec, DataSpec | ModelSpec):
        return spec
    changed: dict[str, Any] = {"model": absolute(spec.model, weights=not isinstance(spec, InspectSpec))}
    if isinstance(spec, EvaluateSpec) and spec.against:
        against = spec.against.model_copy(update={"model": absolute(spec.against.model)})
        changed["against"] = against
    return spec.model_copy(update=changed)


def _check_target_modules(spec: AnySpec) -> None:
    """Check the target modules of a local model before it is loaded; a Hub model may not be here yet."""
    if not isinstance(spec, TrainingSpec):
        return
    source = classify_model(spec.model.name)
    if source.kind == "folder":
        check_target_modules(Path(source.location), spec.lora.target_modules)


def _require_libraries(spec: AnySpec) -> None:
    for library in libraries_of(spec):
        if find_spec(library) is None:
            raise MissingExtraError(
                f"{library} is not installed.", hint=f'pip install "backpropagate-mcp[{EXTRAS[library]}]"'
            )
    if isinstance(spec, TrainingSpec):
        require_installed(spec.training.report_to)


def _require_fit(spec: AnySpec, settings: Settings) -> None:
    """Refuse a training that cannot fit, as far as is known without a network."""
    if not isinstance(spec, TrainingSpec):
        return
    from ..planning.fits import require_fit
    from ..planning.machine import machine_for
    from ..planning.model_facts import model_facts

    with suppress(ModelLoadError, GpuMonitoringError):  # the worker says so
        facts = model_facts(spec.model, settings.home / "models", ask_hub=False)
        require_fit(spec, facts, machine_for(spec.training.device, "largest", gpus=gpus_of(spec)))
