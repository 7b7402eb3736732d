"""The spec of a training from its arguments."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..config.settings import Settings, load_settings
from ..config.specs import TrainSpec
from ..errors import InputError
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


def train_spec(
    defaults: Settings | None = None,
    *,
    settings: Mapping[str, Any] | None = None,
    arguments: Mapping[str, Any],
    roots: Sequence[str] | None = None,
) -> TrainSpec:
    """The spec of a training run.

    Args:
        defaults: the values of settings that are not given.
        settings: more settings, by group (`{"lora": {"dropout": 0.1}}`) or by flat name.
        arguments: settings by their flat names (`TrainArguments`); None means not given. They override groups
            in `settings`.
        roots: see `Spec`.

    Raises:
        InputError: an unknown name (with the nearest known one), a value out of bounds, or a secret.
    """
    groups = by_group(defaults or load_settings(), settings or {}, arguments)
    return validated(TrainSpec, {**groups, "roots": roots})
