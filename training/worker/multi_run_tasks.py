"""The rows of each run of a multi-run: parts of one dataset, a dataset each, or those of an earlier run."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from ..config.specs import DataGroup, MultiRunSpec, TrainSpec
from ..data.check import Checked
from ..data.prepare import Prepared
from ..data.split.held_out import held_out_count
from ..data.tokens.example import Example
from ..data.tokens.kept_rows import MOST_HASHES, MOST_REPLAYABLE, KeptRows
from ..errors import InvalidSettingError
from ..untrusted import quoted

if TYPE_CHECKING:
    from ..data.tokens.token_store import Examples
    from ..engine.plan import Plan


class Chosen(Sequence[Example]):
    """Some of the examples of a dataset, read when they are needed."""

    def __init__(self, examples: Examples, indices: Sequence[int]) -> None:
        self._examples = examples
        self._indices = indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[number] for number in range(len(self))[index]]
        return self._examples[self._indices[index]]

    def hashes(self) -> list[str]:
        """The content hash of each example's row."""
        known = self._examples.hashes()
        return [known[index] for index in self._indices]


@dataclass(frozen=True)
class TaskRows:
    """What one run trains on, and what it is scored on.

    Args:
        fresh: training examples that no earlier run has. Of a run that is taken over, some of them.
        scored: examples that the task is scored on.
        replayed: training examples of earlier runs.
        prepared: the dataset that the rows are of; None if they are of a run that is taken over.
    """

    name: str
    fresh: Sequence[Example]
    held_out: Sequence[Example]
    scored: Sequence[Example]
    replayed: Sequence[Example] = ()
    prepared: Prepared | None = None

    @classmethod
    def of_kept(cls, kept: KeptRows) -> TaskRows:
        """The task of a run that is taken over."""
        held_out = kept.scored if kept.scored_on == "held_out" else []
        return cls(kept.name, kept.replayable, held_out, kept.scored)

    @property
    def train(self) -> Sequence[Example]:
        return [*self.fresh, *self.replayed] if self.replayed else self.fresh

    @property
    def scored_on(self) -> Literal["held_out", "training"]:
        return "held_out" if len(self.held_out) else "training"


def new_task(
    name: str, data: Prepared, train: Sequence[int], held_out: Sequence[int], most_scored: int
) -> TaskRows:
    """A task with these of a dataset's examples.

    Args:
        most_scored: of its held-out examples, or of its training ones if there are none.
    """
    fresh, own = Chosen(data.train, train), Chosen(data.held_out, held_out)
    scored = spread(own if len(own) else fresh, most_scored)
    return TaskRows(name, fresh, own, scored, prepared=data)


def spread(examples: Sequence[Example], most: int) -> list[Example]:
    """At most `most` of the examples, from all of them in equal distances."""
    count = min(most, len(examples))
    return [examples[number * len(examples) // count] for number in range(count)]


def kept_rows(task: TaskRows) -> KeptRows:
    """What the run folder keeps of a new task."""
    assert isinstance(task.fresh, Chosen) and isinstance(task.held_out, Chosen)
    return KeptRows(
        name=task.name,
        scored_on=task.scored_on,
        scored=list(task.scored),
        replayable=spread(task.fresh, MOST_REPLAYABLE),
        held_out=task.held_out.hashes(),
        trained=task.fresh.hashes()[:MOST_HASHES],
    )


@dataclass(frozen=True)
class ReadyRuns:
    """The inputs of the loop.

    Args:
        tasks: of all runs, those that are taken over first.
        plans: of the runs that are trained. If none is, one by which the model is opened.
        first: what is known of the training that becomes run 1, if one does.
    """

    spec: MultiRunSpec
    tokenizer: Any
    tasks: Sequence[TaskRows]
    plans: Sequence[Plan]
    first: FirstRun | None = None

    @property
    def new_tasks(self) -> Sequence[TaskRows]:
        return self.tasks[self.spec.earlier :]

    def plan_of(self, run: int) -> Plan:
        return self.plans[run - self.spec.earlier - 1]


class FirstRun(NamedTuple):
    """A training that becomes run 1 of a multi-run."""

    steps: int
    learning_rate: float


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
        parent=spec.parent,
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


def rows_of_runs(
    spec: MultiRunSpec, prepared: Sequence[Prepared], earlier: Sequence[KeptRows] = ()
) -> list[TaskRows]:
    """The rows of each run, in the order of the runs.

    Args:
        prepared: one per task, or the one dataset that is cut into parts.
        earlier: of the runs that are taken over.

    Raises:
        InvalidSettingError: there are too few rows, or a task trains on rows that another holds out.
    """
    new = _of_tasks(spec, prepared) if spec.tasks else _parts(spec, prepared[0]) if prepared else ()
    tasks = [*map(TaskRows.of_kept, earlier), *new]
    _require_apart([*earlier, *_all_rows(spec, prepared)])
    return [
        *tasks[: len(earlier)],
        *(_with_replay(spec, tasks, number) for number in range(len(earlier), len(tasks))),
    ]


def _of_tasks(spec: MultiRunSpec, prepared: Sequence[Prepared]) -> Iterator[TaskRows]:
    for index, data in enumerate(prepared):
        name = _name(spec, index)
        _require_enough(spec, len(data.train), len(data.held_out), name)
        count = spec.multi.samples_per_run or len(data.train)
        yield new_task(name, data, range(count), range(len(data.held_out)), spec.multi.rows_per_task)


def _parts(spec: MultiRunSpec, data: Prepared) -> Iterator[TaskRows]:
    """Disjoint parts of the training rows in their seeded order, and of the held-out rows."""
    runs = spec.num_runs
    _require_enough(spec, len(data.train), len(data.held_out), None)
    count = spec.multi.samples_per_run or len(data.train) // runs
    for run in range(runs):
        train, held_out = range(run * count, (run + 1) * count), range(run, len(data.held_out), runs)
        yield new_task(_name(spec, run), data, train, held_out, spec.multi.rows_per_task)


def _name(spec: MultiRunSpec, index: int) -> str:
    return spec.tasks[index].name if spec.tasks else f"part {spec.earlier + index + 1}"


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


class _Hashes(NamedTuple):
    """The content hashes of a dataset's rows."""

    name: str
    trained: list[str]
    held_out: list[str]


def _all_rows(spec: MultiRunSpec, prepared: Sequence[Prepared]) -> Iterator[_Hashes]:
    for index, data in enumerate(prepared):
        yield _Hashes(_name(spec, index), data.train.hashes(), data.held_out.hashes())


def _require_apart(datasets: Sequence[KeptRows | _Hashes]) -> None:
    """Refuse a task that trains on rows by which another is scored: the score would mean nothing."""
    trained = [(data.name, set(data.trained)) for data in datasets]
    for data in datasets:
        for name, hashes in trained:
            if shared := len(hashes & set(data.held_out)):
                raise InvalidSettingError(
                    f"Task {quoted(name)} trains on {shared} of the held-out rows of task "
                    f"{quoted(data.name)}.",
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
    return replace(task, replayed=replayed)
