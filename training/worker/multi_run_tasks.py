"""The rows of each run of a multi-run: parts of one dataset, or a dataset each."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ..config.specs import DataGroup, MultiRunSpec, TrainSpec
from ..data.check import Checked
from ..data.prepare import Prepared
from ..data.split.held_out import held_out_count
from ..data.tokens.example import Example
from ..errors import InvalidSettingError
from ..untrusted import quoted

if TYPE_CHECKING:
    from ..engine.plan import Plan


class Chosen(Sequence[Example]):
    """Some of the examples, read when they are needed."""

    def __init__(self, examples: Sequence[Example], indices: Sequence[int]) -> None:
        self._examples: Sequence[Any] = examples
        self._indices = indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[number] for number in range(len(self))[index]]
        return self._examples[self._indices[index]]


@dataclass(frozen=True)
class TaskRows:
    """What one run trains on, and what it is scored on.

    Args:
        prepared: the dataset that the rows are of.
        fresh: training examples that no earlier run has.
        replayed: training examples of earlier runs.
    """

    name: str
    prepared: Prepared
    fresh: Sequence[Example]
    held_out: Sequence[Example]
    replayed: Sequence[Example] = ()

    @property
    def train(self) -> Sequence[Example]:
        return [*self.fresh, *self.replayed] if self.replayed else self.fresh

    @property
    def scored_on(self) -> Literal["held_out", "training"]:
        return "held_out" if len(self.held_out) else "training"

    def scored(self, most: int) -> Sequence[Example]:
        """At most `most` examples, spread over the held-out ones, or the training ones if there are none."""
        examples = self.held_out if len(self.held_out) else self.fresh
        count = min(most, len(examples))
        return Chosen(examples, [number * len(examples) // count for number in range(count)])


@dataclass(frozen=True)
class ReadyRuns:
    """The inputs of the loop: the rows and the plan of each run."""

    spec: MultiRunSpec
    tokenizer: Any
    tasks: Sequence[TaskRows]
    plans: Sequence[Plan]


def request_of_run(spec: MultiRunSpec, data: DataGroup) -> TrainSpec:
    """What one of the runs would be as a training of its own."""
    steps = spec.multi.steps_per_run or spec.training.steps
    return TrainSpec(
        roots=spec.roots,
        model=spec.model,
        data=data,
        lora=spec.lora,
        training=spec.training.model_copy(update={"steps": steps}),
        evaluation=spec.evaluation,
    )


def require_rows(spec: MultiRunSpec, checked: Sequence[Checked]) -> None:
    """Refuse more runs or rows than the data has, as far as the rows alone tell it.

    Raises:
        InvalidSettingError: there are too few rows.
    """
    for index, found in enumerate(checked):
        if "text" in found.formats:  # a long text gives many examples
            continue
        usable = min(found.usable, spec.data.samples or found.usable)
        held_out = held_out_count(usable, spec.data.held_out)
        _require_enough(spec, usable - held_out, held_out, _name(spec, index) if spec.tasks else None)


def rows_of_runs(spec: MultiRunSpec, prepared: Sequence[Prepared]) -> list[TaskRows]:
    """The rows of each run, in the order of the runs.

    Args:
        prepared: one per task, or the one dataset that is cut into parts.

    Raises:
        InvalidSettingError: there are too few rows, or a task trains on rows that another holds out.
    """
    tasks = list(_of_tasks(spec, prepared) if spec.tasks else _parts(spec, prepared[0]))
    _require_apart(spec, prepared)
    return [_with_replay(spec, tasks, number) for number in range(len(tasks))]


def _of_tasks(spec: MultiRunSpec, prepared: Sequence[Prepared]) -> Iterator[TaskRows]:
    for index, data in enumerate(prepared):
        name = _name(spec, index)
        _require_enough(spec, len(data.train), len(data.held_out), name)
        count = spec.multi.samples_per_run or len(data.train)
        yield TaskRows(name, data, Chosen(data.train, range(count)), data.held_out)


def _parts(spec: MultiRunSpec, data: Prepared) -> Iterator[TaskRows]:
    """Disjoint parts of the training rows in their seeded order, and of the held-out rows."""
    runs = spec.num_runs
    _require_enough(spec, len(data.train), len(data.held_out), None)
    count = spec.multi.samples_per_run or len(data.train) // runs
    for run in range(runs):
        fresh = Chosen(data.train, range(run * count, (run + 1) * count))
        held_out = Chosen(data.held_out, range(run, len(data.held_out), runs))
        yield TaskRows(_name(spec, run), data, fresh, held_out)


def _name(spec: MultiRunSpec, index: int) -> str:
    return spec.tasks[index].name if spec.tasks else f"part {index + 1}"


def _require_enough(spec: MultiRunSpec, rows: int, held_out: int, task: str | None) -> None:
    runs = 1 if task else spec.num_runs
    wanted = (spec.multi.samples_per_run or 1) * runs
    if wanted <= rows:
        return
    asked = f"samples_per_run={spec.multi.samples_per_run}" if spec.multi.samples_per_run else "one row a run"
    times = "" if task else f" with num_runs={runs}"
    where = f"the dataset of task {quoted(task)}" if task else "the dataset"
    most = rows // runs
    raise InvalidSettingError(
        f"{asked}{times} needs {wanted} training rows; {where} has {rows}, and {held_out} held-out rows.",
        hint=f"Set samples_per_run={most} or less, or give more rows." if most else "Set a smaller num_runs.",
    )


def _require_apart(spec: MultiRunSpec, prepared: Sequence[Prepared]) -> None:
    """Refuse a task that trains on rows by which another is scored: the score would mean nothing."""
    trained = [set(data.train.hashes()) for data in prepared]
    for index, data in enumerate(prepared):
        held_out = set(data.held_out.hashes())
        for other, hashes in enumerate(trained):
            if shared := len(held_out & hashes):
                raise InvalidSettingError(
                    f"Task {quoted(_name(spec, other))} trains on {shared} of the held-out rows of task "
                    f"{quoted(_name(spec, index))}.",
                    hint="Remove these rows from one of the datasets, or set held_out=0.",
                )


def _with_replay(spec: MultiRunSpec, tasks: Sequence[TaskRows], number: int) -> TaskRows:
    task, share = tasks[number], spec.multi.replay
    places = [(earlier, row) for earlier in tasks[:number] for row in range(len(earlier.fresh))]
    count = min(len(places), round(len(task.fresh) * share / (1 - share)))
    if not count:
        return task
    drawn = random.Random(f"replay {spec.training.seed} {number}").sample(places, count)
    replayed = [earlier.fresh[row] for earlier, row in drawn]
    return TaskRows(task.name, task.prepared, task.fresh, task.held_out, replayed)
