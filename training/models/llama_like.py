"""The linear modules that a model has, of the families whose layers are known.

Known from config.json alone, so that a wrong module name is refused before anything is waited for or loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..errors import InputError, ModelLoadError
from ..files.atomic_json import read_json
from ..nearest_name import nearest
from ..untrusted import quoted, short_name, shown_path
from .decoder_families import FAMILIES
from .expert_layers import target_name

HEAD = "lm_head"


def check_target_modules(folder: Path, targets: str | Sequence[str]) -> None:
    """Refuse modules that a model of one of `FAMILIES` does not have; of other models nothing is known here.

    Args:
        folder: with config.json.
        targets: "all-linear", "attention", or names of modules, also full ones.

    Raises:
        InputError: there is no such module.
        ModelLoadError: config.json cannot be read.
    """
    if targets in ("all-linear", "attention"):
        return
    family = FAMILIES.get(str(_model_type(folder / "config.json")))
    if family is None:
        return
    known = [*family.targets, HEAD]
    for target in [targets] if isinstance(targets, str) else targets:
        if target_name(target) not in known:
            raise unknown_module(target, known)


def _model_type(config: Path) -> object:
    try:
        return read_json(config).get("model_type")
    except (OSError, ValueError) as error:
        raise ModelLoadError(
            f"{shown_path(config)} cannot be read: {type(error).__name__}.", cause=error, untrusted=str(error)
        ) from error


def unknown_module(target: str, known: Sequence[str]) -> InputError:
    """The error for a module that a model does not have."""
    close = nearest(target, list(known))
    return InputError(
        f"The model has no linear module {quoted(target)}.",
        hint=f"Did you mean {short_name(close)}?"
        if close
        else f"It has {', '.join(map(short_name, known))}.",
    )
