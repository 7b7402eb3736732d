"""The spec of an evaluation from its arguments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..config.arguments import ALIASES, OTHER_NAMES
from ..config.settings import Settings
from ..config.specs import DataGroup, EvaluateSpec, TrainingSpec
from ..errors import InputError, InvalidSettingError
from ..files.paths import PathPolicy
from ..runs.store import RunStore
from ..untrusted import quoted
from .dataset_source import named_source, resolved_source
from .generate import LOADING, reference_values
from .settings import by_group, require_known
from .sources import ExportSource, export_source
from .validated import validated

BASE = "base"
RENDERED = ("max_seq_length", "train_on", "merge_system", "control_tokens", "private_data")
"""Data settings that change what a model gets of a row; those of the run are used if none are given."""
OF_TRAINING = frozenset({"source", "held_out", "order"})
"""Data settings that have no meaning here."""


def evaluate_spec(
    source: str,
    store: RunStore,
    paths: PathPolicy,
    defaults: Settings,
    *,
    dataset: object | None = None,
    against: str | None = None,
    settings: Mapping[str, Any] | None = None,
    **given: Any,
) -> EvaluateSpec:
    """The spec of an evaluation.

    Args:
        source: a run's id, the path of an adapter or model folder, or a model's name.
        store: the runs.
        paths: the folders that may be read.
        dataset: the rows; None: the held-out rows of the run.
        against: as `source`; None or "base": the source without its adapter.
        settings: data settings by their flat names; None means not given.
        given: fields of `EvaluateSpec`, and load_in_4bit and allow_other_base; None means not given.

    Raises:
        InputError: a model or the dataset does not exist, an argument is unknown or out of bounds, or there
            is nothing to compare.
        InvalidSettingError: metrics and pattern contradict each other.
    """
    meant = export_source(source, store, paths)
    other = _other(against, meant, store, paths)
    given = {name: value for name, value in given.items() if value is not None}
    loading = {name: given.pop(name) for name in LOADING if name in given}
    _require_pattern(given.get("metrics"), given.get("pattern"))
    trained = _training(meant, store)
    values = {
        **reference_values(meant, store, loading),
        "against": reference_values(other, store, loading) if other else None,
        "data": _data(dataset, settings or {}, trained, paths, defaults),
        "roots": _roots(paths, meant, other),
        **given,
    }
    return validated(EvaluateSpec, values)


def _other(
    against: str | None, meant: ExportSource, store: RunStore, paths: PathPolicy
) -> ExportSource | None:
    """What the source is compared with; None is its own base."""
    if against is None or against.lower() == BASE:
        if meant.adapter is None:
            raise InputError(
                "source has no adapter, so it cannot be compared with its base.",
                hint="Give against: another run, adapter or model.",
            )
        return None
    other = export_source(against, store, paths, "against")
    if (other.model, other.adapter) == (meant.model, meant.adapter):
        raise InputError(f"against: {quoted(against)} is the same model as source.", hint="Give another one.")
    return None if (other.model, other.adapter) == (meant.model, None) else other


def _training(meant: ExportSource, store: RunStore) -> TrainingSpec | None:
    spec = store.find(meant.run).spec() if meant.run else None
    return spec if isinstance(spec, TrainingSpec) else None


def _roots(paths: PathPolicy, meant: ExportSource, other: ExportSource | None) -> list[str] | None:
    roots = meant.roots(paths)
    more = other.roots(paths) if other else None
    return roots if roots is None else [*dict.fromkeys([*roots, *(more or [])])]


def _data(
    dataset: object | None,
    settings: Mapping[str, Any],
    trained: TrainingSpec | None,
    paths: PathPolicy,
    defaults: Settings,
) -> dict[str, Any]:
    own = _known(settings, defaults)
    if dataset is None:
        _require_held_out(own, trained, paths)
        return own
    base = trained.data if trained else defaults.data
    rendered = {name: getattr(base, name) for name in RENDERED}
    return {**rendered, **own, "source": resolved_source(named_source(dataset), paths)}


def _known(settings: Mapping[str, Any], defaults: Settings) -> dict[str, Any]:
    """The data settings that are given, by our names.

    Raises:
        InputError: one is unknown, or has no meaning here.
    """
    known = [name for name in DataGroup.model_fields if name not in OF_TRAINING]
    others = [name for name, alias in ALIASES.items() if alias.name in known]
    for name in settings:
        require_known(name, [*known, *others], "setting", OTHER_NAMES)
    taken: dict[str, Any] = by_group(Settings.model_construct(), {}, settings)["data"] if settings else {}
    return {name: value for name, value in taken.items() if name not in OF_TRAINING}


def _require_held_out(own: Mapping[str, Any], trained: TrainingSpec | None, paths: PathPolicy) -> None:
    """Refuse to go without a dataset where no run has one."""
    if trained is None:
        raise InputError(
            "dataset is missing: source is no training run, which would have held-out rows.",
            hint="Give the path of a file, a folder or a Hub dataset.",
        )
    others = [name for name in own if name != "samples"]
    if others:
        raise InputError(
            f"{others[0]} needs a dataset: the run's held-out rows are read as in its training.",
            hint="Give a dataset, or leave it out.",
        )
    for data in trained.datasets:
        if data.source is not None:
            resolved_source(data.source, paths)


def _require_pattern(metrics: Sequence[str] | None, pattern: str | None) -> None:
    if pattern is None and "regex" in (metrics or []):
        raise InvalidSettingError("metrics has regex, and no pattern is given.", hint="Give pattern.")
    if pattern is not None and metrics is not None and "regex" not in metrics:
        raise InvalidSettingError(
            "pattern is given, and metrics does not have regex.", hint="Add regex to metrics."
        )
