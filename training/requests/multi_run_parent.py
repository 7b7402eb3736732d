"""The earlier run that a multi-run continues: what is taken over from it, and what has to be as it was."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from ..config.arguments import flat_name
from ..config.ledger import Ledger, read_ledger
from ..config.specs import MultiRunSpec, TrainingSpec
from ..errors import InputError, InvalidSettingError
from ..files.paths import looks_like_path
from ..models.presets import AUTO, classify_model
from ..next_step import then
from ..runs.folder import ENDED
from ..runs.store import RunStore
from ..untrusted import shown_path

FREE = {"lora": {"dropout", "preset"}, "model": {"name", "allow_other_base"}}
"""Settings that may differ from the earlier run's, or are compared in another way."""


@dataclass(frozen=True)
class Parent:
    """The run that is continued.

    Args:
        ledger: of its merged runs; None for a training, which becomes run 1.
    """

    run_id: str
    spec: TrainingSpec
    ledger: Ledger | None

    @property
    def names(self) -> list[str]:
        """The names of its tasks."""
        if self.ledger is None:
            return [name_of_training(self.spec)]
        return [task.name for task in self.ledger.tasks]

    def earlier(self, rollback_to: int | None) -> int:
        """The number of its runs that are taken over.

        Raises:
            InvalidSettingError: it has fewer merges than asked for.
        """
        count = len(self.names)
        if rollback_to is not None and rollback_to > count:
            raise InvalidSettingError(
                f"rollback_to={rollback_to}, but run {self.run_id} has {count} merged runs.",
                hint=f"Give a number from 1 to {count}.",
            )
        return rollback_to or count

    def roots(self, roots: list[str] | None) -> list[str] | None:
        """The folders that may be read: its model was permitted for its own training."""
        own = [self.spec.model.name] if looks_like_path(self.spec.model.name) else []
        return None if roots is None else [*roots, *own]

    def groups(self, given: Mapping[str, Any], model: str | None) -> dict[str, Any]:
        """The settings, with its model and its LoRA.

        Args:
            given: settings by group.
            model: the model that was asked for.

        Raises:
            InvalidSettingError: another model or LoRA is asked for: such adapters cannot be merged.
        """
        if model not in (None, AUTO) and _location(model) != _location(self.spec.model.name):
            raise self._differs("model", model, self.spec.model.name)
        groups = dict(given)
        for group in ("model", "lora"):
            own = getattr(self.spec, group).model_dump()
            for name, value in given[group].items():
                if name not in FREE[group] and not _same(value, own[name]):
                    raise self._differs(flat_name(group, name), value, own[name])
            free = {name: value for name, value in given[group].items() if name in FREE[group] - {"name"}}
            groups[group] = own | free
        return groups

    def _differs(self, what: str, given: object, own: object) -> InvalidSettingError:
        asked, has = shown_path(str(given)), shown_path(str(own))
        return InvalidSettingError(
            f"{what}={asked}, but run {self.run_id} has {what}={has}: their adapters cannot be merged.",
            hint="Leave it out: the model and the LoRA settings of the run that is continued are used.",
        )


def parent_of(run_id: str, store: RunStore) -> Parent:
    """The run that is continued.

    Raises:
        RunNotFoundError: no run, or several, match.
        InputError: it is no training, is not finished, or has no adapter.
    """
    run = store.find(run_id)
    spec, status = run.spec(), store.observe(run).status
    if not isinstance(spec, TrainingSpec):
        raise InputError(
            f"continue_from: run {run.run_id} is no training ({spec.kind}).",
            hint="Give the id of a multi-run or of a training.",
        )
    ledger = read_ledger(run.path) if isinstance(spec, MultiRunSpec) else None
    kept = ledger is None or bool(ledger.kept)
    if status not in ENDED or not run.adapter_path.is_dir() or not kept:
        next_step = then("resume" if status in ENDED else "get_run", run_id=run.run_id)
        raise InputError(
            f"continue_from: run {run.run_id} is {status} and has no adapter to continue from yet.",
            next=next_step,
        )
    return Parent(run.run_id, spec, ledger and ledger.after(len(ledger.kept)))


def name_of_training(spec: TrainingSpec) -> str:
    """The name of a training as a task: that of its dataset's first file."""
    source = spec.data.source
    first = source if isinstance(source, str) else (source or ["task"])[0]
    return PurePath(first).name.partition(".")[0] or "task"


def _location(model: str | None) -> str:
    return classify_model(str(model)).location


def _same(value: Any, own: Any) -> bool:
    """Whether a setting that is still as it was typed means the same."""
    return value == own or str(value).lower() == str(own).lower()
