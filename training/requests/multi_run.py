"""The spec of a multi-run from its arguments."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import PurePath
from typing import Any, cast

from ..config.named_settings import MULTI_RUN_PRESETS
from ..config.settings import Settings, load_settings
from ..config.specs import MultiGroup, MultiRunSpec
from ..errors import InputError, InvalidSettingError
from ..files.output_folder import check_output
from ..files.paths import PathPolicy
from ..models.presets import AUTO
from ..planning.expert_targets import targets_experts
from ..runs.store import RunStore
from ..untrusted import quoted
from .argument_paths import with_resolved_paths
from .dataset_source import named_source, resolved_source
from .multi_run_parent import Parent, parent_of
from .settings import by_group, require_known
from .validated import validated

OUR_ENGINES = ("auto", "packed", "autograd")
OF_NEW_RUNS = {
    "num_runs",
    "samples_per_run",
    "steps_per_run",
    "merge_scale",
    "learning_rate_decay",
    "replay",
    "max_forgetting",
}
"""What means nothing where no run is trained."""


def named_tasks(given: Sequence[object] | Mapping[str, object] | None) -> list[dict[str, Any]]:
    """The tasks with their names, as `{"name", "dataset"}`; a path is named after its file.

    Args:
        given: paths, objects with `name` and `dataset`, or an object of names and datasets.

    Raises:
        InputError: an entry is neither, or two tasks have the same name.
    """
    if isinstance(given, str | PathLike):
        given = [given]
    elif isinstance(given, Mapping):
        given = [{"name": name, "dataset": dataset} for name, dataset in given.items()]
    tasks = [_named_task(entry) for entry in given or []]
    for name, count in Counter(task["name"] for task in tasks).items():
        if count > 1:
            raise InputError(
                f"{count} tasks have the name {quoted(name)}.", hint="Give each task a name of its own."
            )
    return tasks


def resolved_tasks(
    given: Sequence[object] | Mapping[str, object] | None, paths: PathPolicy
) -> list[dict[str, Any]]:
    """`named_tasks` with absolute, permitted datasets.

    Raises:
        InputError: as `named_tasks`.
        PathForbiddenError: a path may not be read.
    """
    return [
        {**task, "dataset": resolved_source(named_source(task["dataset"]), paths)}
        for task in named_tasks(given)
    ]


def _named_task(entry: object) -> dict[str, Any]:
    if isinstance(entry, list | tuple):
        return {**_named_task(next(iter(cast("list[object]", entry)), "")), "dataset": entry}
    if not isinstance(entry, Mapping):
        path = str(entry)
        return {"name": PurePath(path).name.partition(".")[0] or path, "dataset": path}
    task = cast("Mapping[str, Any]", entry)
    for name in task:
        require_known(name, ["name", "dataset"], "field of a task")
    if "dataset" not in task:
        raise InputError("A task has no dataset.", hint='Give each task as {"name": …, "dataset": …}.')
    return {"name": str(task.get("name") or _named_task(task["dataset"])["name"]), "dataset": task["dataset"]}


def multi_run_spec(
    defaults: Settings | None = None,
    *,
    settings: Mapping[str, Any] | None = None,
    arguments: Mapping[str, Any],
    multi: Mapping[str, Any],
    tasks: Sequence[Mapping[str, Any]] = (),
    roots: list[str] | None = None,
    parent: Parent | None = None,
) -> MultiRunSpec:
    """The spec of a multi-run.

    Args:
        defaults, settings, arguments, roots: as for `train_spec`.
        multi: the settings of the multi-run by name; None means not given.
        tasks: see `named_tasks`; with resolved datasets.
        parent: the run that is continued, with its model and its LoRA.

    Raises:
        InputError: an unknown name, a value out of bounds, or both a dataset and tasks.
        InvalidSettingError: settings contradict each other.
    """
    groups = by_group(defaults or load_settings(), settings or {}, arguments)
    if parent is not None:
        groups = parent.groups(groups, arguments.get("model"))
        roots = parent.roots(roots)
    for name in multi:
        require_known(name, list(MultiGroup.model_fields), "argument")
    given = {name: value for name, value in multi.items() if value is not None}
    if tasks and arguments.get("dataset"):
        raise InputError("dataset and tasks are both given.", hint="Give one of them.")
    if "rollback_to" in given and parent is None:
        raise InputError("rollback_to needs continue_from.", hint="Give the run that has this merge.")
    if "steps_per_run" in given and arguments.get("steps"):
        raise InputError("steps and steps_per_run are both given.", hint="Give steps_per_run.")
    if tasks:
        groups["data"].pop("source", None)
    if tasks or groups["data"].get("source"):
        given = _of_preset(groups["training"].get("preset"), tasks, arguments) | given
    if parent is not None and parent.ledger is not None:
        given.setdefault("merge_mode", parent.ledger.merge_mode)
    values = {**groups, "multi": given, "tasks": list(tasks), "roots": roots}
    spec = validated(MultiRunSpec, values)
    if spec.data.validation is not None:
        raise InputError(
            "validation is a setting of a single training; a multi-run holds out rows of each dataset.",
            hint="Leave it out; held_out sets the share.",
        )
    _require_consistent(spec)
    return spec if parent is None else _continued(spec, parent)


def _of_preset(preset: object, tasks: object, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """What a preset says of the runs, where nothing that is given says otherwise."""
    named = MULTI_RUN_PRESETS.get(str(preset), {})
    left_out = {"num_runs": tasks, "steps_per_run": arguments.get("steps") or arguments.get("epochs")}
    return {name: value for name, value in named.items() if not left_out.get(name)}


def multi_run_spec_of(
    arguments: Mapping[str, Any],
    multi: Mapping[str, Any],
    tasks: Sequence[object] | Mapping[str, object] | None,
    defaults: Settings,
    store: RunStore,
    continue_from: str | None = None,
) -> MultiRunSpec:
    """The spec of a person's or a program's arguments, with absolute, permitted paths.

    Args:
        tasks: see `named_tasks`.
        continue_from: the run that is continued.

    Raises:
        BackpropagateError: as `multi_run_spec`, `resolved_tasks` and `parent_of`.
    """
    paths = PathPolicy.for_person(defaults.home)
    parent = parent_of(continue_from, store) if continue_from else None
    resolved = with_resolved_paths(arguments, defaults)
    if parent is not None and arguments.get("model") in (None, AUTO):
        resolved["model"] = None
    spec = multi_run_spec(
        defaults, arguments=resolved, multi=multi, tasks=resolved_tasks(tasks, paths), parent=parent
    )
    check_output(spec.output)
    return spec


def _continued(spec: MultiRunSpec, parent: Parent) -> MultiRunSpec:
    """The spec that begins after the runs of an earlier one."""
    mode = parent.ledger.merge_mode if parent.ledger else spec.multi.merge_mode
    if mode != spec.multi.merge_mode:
        raise InvalidSettingError(
            f"merge_mode={spec.multi.merge_mode}, but run {parent.run_id} was merged with {mode}.",
            hint="Leave merge_mode out.",
        )
    earlier = parent.earlier(spec.multi.rollback_to)
    twice = {task.name for task in spec.tasks} & set(parent.names[:earlier])
    if twice:
        raise InputError(
            f"Run {parent.run_id} has a task {quoted(min(twice))} already.",
            hint="Give the new task a name of its own.",
        )
    return spec.model_copy(update={"parent": parent.run_id, "earlier": earlier})


def _require_consistent(spec: MultiRunSpec) -> None:
    multi = spec.multi
    if spec.only_rolls_back and (unused := sorted(multi.model_fields_set & OF_NEW_RUNS)):
        raise InvalidSettingError(
            f"{unused[0]}={getattr(multi, unused[0])}, but there is no dataset.",
            hint=f"Leave {unused[0]} out, or give a dataset.",
        )
    if spec.tasks and multi.num_runs not in (None, len(spec.tasks)):
        raise InvalidSettingError(
            f"num_runs={multi.num_runs}, but there are {len(spec.tasks)} tasks, with one run each.",
            hint="Leave num_runs out.",
        )
    if len(spec.tasks) > 50:
        raise InvalidSettingError(f"There are {len(spec.tasks)} tasks; at most 50 are possible.")
    if multi.merge_scale and multi.merge_mode != "slao":
        raise InvalidSettingError(
            f"merge_scale={multi.merge_scale} has no meaning with merge_mode={multi.merge_mode}.",
            hint="Leave merge_scale out, or set merge_mode=slao.",
        )
    if multi.merge_mode == "slao" and targets_experts(spec.lora):
        raise InvalidSettingError(
            "A LoRA on experts cannot be merged with merge_mode=slao, which makes all rows of A orthogonal.",
            hint="Leave the experts out of lora_target_modules, or set merge_mode=simple.",
        )
    if spec.training.engine not in OUR_ENGINES:
        raise InvalidSettingError(
            f"A multi-run cannot use engine={spec.training.engine}.", hint=f"Set engine to {OUR_ENGINES[0]}."
        )
