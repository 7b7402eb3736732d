"""The part of a `Trainer` that trains."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..config.fields import MergeMode, MergeScale
from ..config.results import MultiRunResult
from ..config.specs import KindName, TrainSpec
from ..data.local_source import local_source
from ..errors import InputError
from ..events import Event, Report, ShouldStop, never_stop, no_report
from ..files.output_folder import check_output
from ..next_step import then
from ..requests.argument_paths import with_resolved_paths
from ..requests.multi_run import multi_run_spec_of
from ..requests.rows_in_memory import as_file
from ..requests.train import require_alone, require_gpus, train_spec
from ..runs.folder import RunFolder, RunState
from ..trackers.choice import require_installed
from ..worker.in_process import Execute
from .callbacks import Callbacks, bar_of, callbacks_of
from .ended import Losses, MultiRun, TrainingRun
from .older_arguments import with_older_arguments
from .older_callbacks import TrainingCallback
from .session import Rows, Session

Callback = Callbacks | TrainingCallback | Callable[[int, float], object] | Callable[[Event], object]
"""`Callbacks`, or a function that is called with each step: with its event, or with its number and loss."""
OFF = "off"
"""As `resume_from`, the same as None: nothing is resumed unless it is named."""


class Training(Session):
    """Trains."""

    @with_older_arguments
    def train(
        self,
        dataset: Rows | None = None,
        steps: int | None = None,
        samples: int | None = None,
        callback: Callback | None = None,
        should_stop: ShouldStop = never_stop,
        resume_from: str | None = None,
        *,
        output: str | Path | None = None,
        progress: bool | None = None,
    ) -> TrainingRun:
        """Fine-tune on a dataset, and record it as a run.

        Args:
            dataset: a file, a glob pattern, a folder, a list of files, a Hub dataset, a list of dicts, or a
                dataset of the library `datasets`. Rows in memory are written to a file of the home folder.
            steps: optimizer steps; None: from the settings, or by epochs.
            samples: use only this many rows.
            callback: `Callbacks`, or a function of (step, loss).
            should_stop: called between steps; True stops the training and saves the adapter.
            resume_from: resume this run of the home folder from its last checkpoint, with its own dataset
                and settings; `dataset` is not needed then. Of the trainer's settings, `allow_other_base`
                counts: it accepts a base model that has changed since the training began; and `gpus`.
            output: also copy the adapter to this folder, which must be new or empty: checked at once.
            progress: show a progress bar; None: in a notebook.

        Raises:
            InputError: the dataset or a setting is not valid, or there is something at `output`.
            BackpropagateError: the training failed; the run records the error too.
            TrainingAbortedError: it was stopped before its first step.
        """
        from ..worker import train

        losses = Losses()
        listener = _in_turn(losses, callback, progress)
        if resume_from in (None, OFF):
            spec = self._spec(dataset, steps, samples, output)
            self._require_device(spec)
            run = self._store.create(spec)
        else:
            run = self._resumed(resume_from, "train")
        started = time.monotonic()
        state = self._told(callback, train.run, run, listener, should_stop)
        self.runs.append(last := losses.run(run, state, time.monotonic() - started))
        if isinstance(callback, TrainingCallback):
            callback.completed(last)
        return last

    @with_older_arguments
    def multi_run(
        self,
        dataset: Rows | None = None,
        num_runs: int | None = None,
        steps_per_run: int | None = None,
        samples_per_run: int | None = None,
        merge_mode: MergeMode | None = None,
        *,
        tasks: Sequence[object] | Mapping[str, object] | None = None,
        merge_scale: MergeScale | None = None,
        learning_rate_decay: float | None = None,
        replay: float | None = None,
        max_forgetting: float | None = None,
        rows_per_task: int | None = None,
        answers_per_task: int | None = None,
        continue_from: str | None = None,
        rollback_to: int | None = None,
        callback: Callback | None = None,
        should_stop: ShouldStop = never_stop,
        resume_from: str | None = None,
        progress: bool | None = None,
    ) -> MultiRun:
        """Train on parts of a dataset, or on several datasets, one after the other, merged into one adapter.

        All settings of the trainer apply to every run. Afterwards `export`, `save` and `push_to_hub` use the
        merged adapter.

        Args:
            dataset: as for `train`; cut into `num_runs` disjoint parts.
            tasks: instead of `dataset`, one dataset per run: paths, or names and datasets.
            num_runs: default 5, or one per task.
            steps_per_run: optimizer steps of each run; None: from the settings, or by epochs.
            samples_per_run: training rows of each run; None: all, divided equally.
            merge_mode: "slao" (default) merges so that earlier runs are remembered, "simple" trains one
                adapter on, "average" averages independent adapters.
            merge_scale: with "slao", the weight of run i: "auto" (default) tries five on the scored rows,
                "sqrt" is 1/√i, "mean" is 1/i. With `continue_from`, that of the earlier multi-run.
            learning_rate_decay: factor of the learning rate from run to run.
            replay: fraction of a run's rows, up to 0.5, that are drawn again from earlier runs.
            max_forgetting: stop, and keep the merge before, when a task's score falls by more than this.
            rows_per_task: maximum rows that a task is scored on; default 100.
            answers_per_task: maximum questions of a task whose answers are compared; default 20, 0 is none.
            continue_from: add the runs to this multi-run, or to this training as run 1: its run id. Model
                and LoRA settings are those of that run, whose folder is only read.
            rollback_to: with `continue_from`, go on from the merge after this run instead of the last;
                without data, only deliver it.
            callback, progress: as for `train`.
            resume_from: resume this multi-run, with its own data and settings.

        Raises:
            InputError, InvalidSettingError: the data or a setting is not valid, or there are too few rows.
            PartialSuccessError: a run failed; the merged adapter of the runs before it is saved.
            BackpropagateError: the first run failed.
            TrainingAbortedError: it was stopped before the first merge.
        """
        from ..worker import multi_run

        multi = {
            "num_runs": num_runs,
            "steps_per_run": steps_per_run,
            "samples_per_run": samples_per_run,
            "merge_mode": merge_mode,
            "merge_scale": merge_scale,
            "learning_rate_decay": learning_rate_decay,
            "replay": replay,
            "max_forgetting": max_forgetting,
            "rows_per_task": rows_per_task,
            "answers_per_task": answers_per_task,
            "rollback_to": rollback_to,
        }
        listener = _in_turn(no_report, callback, progress)
        if resume_from in (None, OFF):
            run = self._new_multi_run(dataset, tasks, multi, continue_from)
        else:
            given = {"dataset": dataset, "tasks": tasks, "continue_from": continue_from, **multi}
            require_alone(name for name, value in given.items() if value is not None)
            run = self._resumed(resume_from, "multi_run")
        started = time.monotonic()
        state = self._told(callback, multi_run.run, run, listener, should_stop)
        result = state.result
        assert isinstance(result, MultiRunResult)
        duration_s = round(time.monotonic() - started, 2)
        last = MultiRun(
            run.run_id, state.status, run.adapter_path, run.path, duration_s, result, list(state.warnings)
        )
        self.runs.append(last)
        if isinstance(callback, TrainingCallback):
            callback.completed(last)
        return last

    def _told(
        self,
        callback: Callback | None,
        execute: Execute,
        run: RunFolder,
        listener: Report,
        should_stop: ShouldStop,
    ) -> RunState:
        """Execute the run; callbacks of earlier versions get the exception itself."""
        try:
            return self._execute(execute, run, listener, should_stop)
        except Exception as error:
            if isinstance(callback, TrainingCallback):
                callback.failed(error)
            raise

    def _new_multi_run(
        self,
        dataset: Rows | None,
        tasks: Sequence[object] | Mapping[str, object] | None,
        multi: Mapping[str, Any],
        continue_from: str | None,
    ) -> RunFolder:
        home = self._store.home
        arguments = self._arguments | ({"dataset": as_file(dataset, home)} if dataset else {})
        if isinstance(tasks, Mapping):
            tasks = {name: as_file(rows, home) for name, rows in tasks.items()}
        spec = multi_run_spec_of(arguments, multi, tasks, self._defaults, self._store, continue_from)
        for data in spec.datasets:
            local_source(data, lambda path: None)
        require_installed(spec.training.report_to)
        self._require_device(spec)
        return self._store.create(spec)

    def _resumed(self, run_id: str, kind: KindName) -> RunFolder:
        run = self._store.find(run_id)
        state = self._store.observe(run)
        if state.kind != kind:
            raise InputError(f"Run {run.run_id} is of kind {state.kind}, not {kind}.")
        allowed = self._arguments.get("allow_other_base") is True
        gpus = self._arguments.get("gpus")
        if gpus is not None:
            gpus = require_gpus(run.request_now(), gpus)
        if self._store.requeue(run, state.attempt, allow_other_base=allowed, gpus=gpus) is None:
            raise InputError(f"Run {run.run_id} is {state.status}.", next=then("get_run", run_id=run.run_id))
        return run

    def _spec(
        self, dataset: Rows | None, steps: int | None, samples: int | None, output: str | Path | None
    ) -> TrainSpec:
        given: dict[str, Any] = {"steps": steps, "samples": samples, "output": output}
        given["dataset"] = as_file(dataset, self._store.home) if _has_rows(dataset) else None
        arguments = self._arguments | {name: value for name, value in given.items() if value is not None}
        spec = train_spec(self._defaults, arguments=with_resolved_paths(arguments, self._defaults))
        local_source(spec.data, lambda path: None)
        check_output(spec.output)
        require_installed(spec.training.report_to)
        return spec


def _has_rows(dataset: Any) -> bool:
    """False of None and of an empty list."""
    return dataset is not None and (not hasattr(dataset, "__len__") or len(dataset) > 0)


def _in_turn(first: Report, callback: Callback | None, progress: bool | None) -> Report:
    """One listener for the program's callbacks and the progress bar."""
    given = callback.of_events() if isinstance(callback, TrainingCallback) else callback
    listeners = [first, callbacks_of(given), bar_of(progress)]

    def tell(event: Event) -> None:
        for listener in listeners:
            if listener is not None:
                listener(event)

    return tell
