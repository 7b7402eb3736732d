"""TrainingService: starts, follows, lists and cancels the runs of a home folder.

It is in the caller's process and has no state except paths, and curves that it has read: the run folders
contain the state. Each run has its own worker process, which can outlive this one.
"""

from __future__ import annotations

import copy
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, TypeVar, Unpack

import anyio
import anyio.from_thread
import anyio.to_thread
from anyio import CapacityLimiter
from anyio.lowlevel import RunVar

from .config.arguments import TrainArguments
from .config.results import InspectResult
from .config.settings import Settings, load_settings
from .config.specs import (
    TRAININGS,
    AnySpec,
    ExportSpec,
    MultiRunSpec,
    TrainSpec,
)
from .config.training_plan import TrainingPlan
from .errors import (
    BackpropagateError,
    InputError,
    StateError,
)
from .events import Event
from .files.output_folder import check_output
from .files.paths import PathPolicy
from .files.system_error import system_error
from .hardware.gpu import GpuReading
from .logs import logger
from .next_step import then
from .requests.argument_paths import with_resolved_paths
from .requests.export import check_export_output
from .requests.multi_run import multi_run_spec_of
from .requests.settings import alias_notes
from .requests.train import on_gpus, require_gpus, train_spec
from .runs.folder import ENDED, RunFolder, RunState, Status
from .runs.gpus_of_run import gpus_of_run
from .runs.identity import boot_id, same_host
from .runs.kinds import kind_of
from .runs.loss_curve import CurveReader, LossCurve
from .runs.request_index import RequestIndex
from .runs.run_texts import log_tail, model_card
from .runs.stopped import stopped_multi_run
from .runs.store import RunStore
from .runs.tail import News, tail_of
from .runs.view import RunLine, RunView, line, view
from .submission.checks import checked
from .submission.dispatch import Dispatch, was_never_started
from .submission.fingerprint import fingerprint_of, is_gone
from .submission.plan import plan_of
from .untrusted import quoted, shown_path

Value = TypeVar("Value")

FOREIGN_SHOWN = 5
CURVES_KEPT = 32  # each has 100 kB at most
SUBMITTING = 16  # calls
_limiter: RunVar[CapacityLimiter] = RunVar("submissions")  # one for each event loop


@dataclass(frozen=True)
class Submission:
    """The run of a request, and whether an earlier equal request created it.

    Args:
        stopped: the run of an earlier equal request, if it was stopped and could be resumed instead.
        by_key: whether the request's key was known; else an existing run was found by its equal request.
        resumable: of a multi-run, an earlier one with the same model and datasets that was stopped.
        repeated: the request demanded a new run, as the one just before it that created the run.
    """

    run_id: str
    existing: bool
    stopped: str | None = None
    by_key: bool = False
    resumable: str | None = None
    repeated: bool = False


class TrainingService:
    """Start, follow, list and cancel runs.

    Args:
        settings: defaults of runs, home folder, workers' Python; read from the environment by default.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or load_settings()
        self.store = RunStore(self.settings.home)
        self.dispatch = Dispatch(self.store, self.settings)
        self._curve_of = lru_cache(CURVES_KEPT)(CurveReader)

    def of(self, principal: str | None) -> TrainingService:
        """This service as a principal of a server sees it: only its own runs exist.

        Args:
            principal: None is the owner of the home, who sees all.
        """
        if principal is None:
            return self
        bound = copy.copy(self)
        bound.store = RunStore(self.settings.home, principal, self.settings.principal, self.store.jobs)
        return bound

    # --- start --------------------------------------------------------------------------------------
    async def train(
        self,
        dataset: str | Path | Sequence[str | Path],
        model: str | Path | None = None,
        *,
        request_key: str | None = None,
        new_run: bool = False,
        **settings: Unpack[TrainArguments],
    ) -> Submission:
        """Start a training in a worker process; it continues after this program.

        Args:
            dataset: a file, a glob pattern, a folder, a list of files, or a Hub dataset.
            model: preset, Hub id, or path of a model folder; None: from the settings.
            request_key: see `submit`.
            new_run: start a new run even if an equal one exists.
            settings: settings by their flat names, e.g. `steps=200, lora_r=8`; None means not given.

        Raises:
            InputError: an argument is unknown, out of bounds, or names nothing.
        """
        arguments = {**settings, "dataset": dataset, "model": None if model is None else str(model)}
        make = partial(_train_spec_of, arguments, self.settings)
        return await self.submit(await self._in_thread(make), request_key=request_key, find_equal=not new_run)

    async def multi_run(
        self,
        dataset: str | Path | Sequence[str | Path] | None = None,
        model: str | Path | None = None,
        *,
        tasks: Sequence[object] | Mapping[str, object] | None = None,
        multi: Mapping[str, Any] | None = None,
        continue_from: str | None = None,
        request_key: str | None = None,
        new_run: bool = False,
        **settings: Unpack[TrainArguments],
    ) -> Submission:
        """Start a multi-run in a worker process; it continues after this program.

        Args:
            dataset, model, request_key, new_run, settings: as for `train`; settings apply to every run.
            tasks: instead of `dataset`, one dataset per run: paths, or names and datasets.
            multi: the settings of the multi-run, e.g. `{"num_runs": 3, "merge_scale": "auto"}`.
            continue_from: add the runs to this multi-run or training.

        Raises:
            InputError, InvalidSettingError: an argument is unknown, out of bounds, or names nothing.
            RunNotFoundError: no run, or several, match `continue_from`.
        """
        given = {**settings, "dataset": dataset, "model": None if model is None else str(model)}

        def make() -> MultiRunSpec:
            spec = multi_run_spec_of(given, multi or {}, tasks, self.settings, self.store, continue_from)
            for note in alias_notes(given):
                logger().warning(note)
            return spec

        return await self.submit(await self._in_thread(make), request_key=request_key, find_equal=not new_run)

    async def submit(
        self,
        spec: AnySpec,
        *,
        request_key: str | None = None,
        find_equal: bool = False,
        repeats_s: float = 0,
        approve: Callable[[], None] | None = None,
    ) -> Submission:
        """Create the run folder and start the worker.

        Args:
            request_key: a name for this request; the same key with the same spec returns the same run.
            find_equal: if the key is new, or without one, return an existing run with equal spec and equal
                dataset content that is queued, running, or completed within two minutes.
            repeats_s: without either, an equal request within so many seconds is the same one, sent again by
                a client that lost the answer.
            approve: called in a thread before a new run is made; what it raises refuses the run.

        Raises:
            InputError: the model name, a target module, the dataset or the request key cannot be used.
            QueueFullError: twenty runs are waiting.
            ClusterError: its cluster refuses it; nothing of the run is kept.
            DiskFullError: the disk is full; nothing of the run is kept.
        """
        act = partial(self._submit, spec, request_key, find_equal, repeats_s, approve)
        return await self._in_thread(act, _submissions())

    def _submit(
        self,
        spec: AnySpec,
        request_key: str | None,
        find_equal: bool,
        repeats_s: float = 0,
        approve: Callable[[], None] | None = None,
    ) -> Submission:
        spec = checked(spec, self.settings, self.store.principal)
        fingerprint = fingerprint_of(spec, self.settings.home, _stopped_with_the_call)
        resumable = stopped_multi_run(self.store, spec) if isinstance(spec, MultiRunSpec) else None
        look = partial(
            RequestIndex(self.store).run_for,
            spec,
            request_key,
            fingerprint,
            find_equal,
            repeats_s=repeats_s,
            approve=approve,
        )
        found = look()
        if found.existing and not found.by_key and is_gone(found.run):
            found = look(instead_of=found.run)
        if not found.existing:
            self._queue_or_undo(found.run, spec)
        if not found.existing or was_never_started(self.store.observe(found.run)):
            self.dispatch.start(found.run)
        stopped = found.stopped.run_id if found.stopped else None
        resumable = None if found.existing else resumable
        return Submission(found.run.run_id, found.existing, stopped, found.by_key, resumable, found.repeated)

    async def plan(self, spec: TrainSpec, inspected: InspectResult | None = None) -> TrainingPlan:
        """How a training would run: whether it fits, at which settings, how long, what else would fit.

        Reads config.json (of a model that is not here, from the Hub) and earlier runs; loads no model.

        Args:
            inspected: what an inspection has found in its dataset; None: guessed from the size of its files.

        Raises:
            ModelLoadError: nothing is known of the model.
            GpuNotAvailableError: a GPU is wanted and there is none.
        """
        plan = await self._in_thread(partial(plan_of, spec, inspected, self.store, self.settings))
        if plan.possible:
            await self._in_thread(partial(self.dispatch.announce, spec.kind))
        return plan

    def _queue_or_undo(self, run: RunFolder, spec: AnySpec) -> None:
        try:
            if isinstance(spec, ExportSpec):
                check_export_output(spec)  # an equal request that was found has written it
            self.dispatch.queue(run, spec)
        except Exception:
            self.store.delete_unstarted(run)
            raise

    @property
    def runtime_folder(self) -> Path:
        """Where the queues of this machine are."""
        return self.dispatch.runtime_folder

    def keeping_spare(self) -> AbstractContextManager[None]:
        """Keep a worker ready for the next training: after an inspection, a plan, a probe or a training.

        It has imported torch and transformers, and waits for `spare_worker_s`. For servers, which live long.
        """
        return self.dispatch.spare.kept()

    async def recover(self) -> None:
        """Start the queued runs that have no worker, and record the interrupted ones."""
        await self._in_thread(self._recover)

    def _recover(self) -> None:
        self.store.sweep()
        RequestIndex(self.store).sweep()
        self.dispatch.start_again()

    async def resume(
        self,
        run_id: str,
        *,
        allow_other_base: bool = False,
        dataset: str | list[str] | None = None,
        gpus: int | str | None = None,
    ) -> RunView:
        """Queue an ended run again: the same folder, a new attempt, from its last checkpoint.

        A queued or running run is not changed.

        Args:
            allow_other_base: accept a base model that has changed since the training began.
            dataset: absolute paths, where the dataset of the run is now; its content must be equal.
            gpus: of a training; None: as many as before. The result does not depend on it.

        Raises:
            GpuNotAvailableError: there are fewer GPUs.
            InputError: it has completed, belongs to another machine, or `dataset` is another one.
            QueueFullError: twenty runs are waiting.
        """
        act = partial(self._resume, run_id, allow_other_base, dataset, gpus)
        return await self._in_thread(act, _submissions())

    def _resume(
        self,
        run_id: str,
        allow_other_base: bool = False,
        dataset: str | list[str] | None = None,
        gpus: int | str | None = None,
    ) -> RunView:
        run = self.store.find(run_id)
        if gpus is not None:
            gpus = require_gpus(run.request_now(), gpus)
        moved = None if dataset is None else self._moved(run, dataset)
        state = self.store.observe(run)
        if moved and state.status not in ENDED:
            raise InputError(
                f"Run {run.run_id} is {state.status.value}, with the dataset that it has.",
                next=then("cancel", run_id=run.run_id),
            )
        if state.status in ENDED and self.store.requeue(
            run, state.attempt, allow_other_base=allow_other_base, dataset=moved, gpus=gpus
        ):
            try:
                self.dispatch.queue(run, run.request_now())
            except Exception:
                self.store.undo_requeue(run, state)
                raise
            self.dispatch.start(run)
        return view(run, run.state())

    def _moved(self, run: RunFolder, dataset: str | list[str]) -> str | list[str] | None:
        # Here: a server answers its first request without the readers of datasets.
        from .requests.moved_dataset import moved_dataset

        policy = PathPolicy.from_record(run.spec().roots, self.settings.home)
        return moved_dataset(run, dataset, policy.permit, _stopped_with_the_call)

    async def resume_or_extend(
        self,
        run_id: str,
        steps: int | None = None,
        dataset: str | list[str] | None = None,
        gpus: int | str | None = None,
    ) -> Submission:
        """Resume a run; or, for more steps than planned, start a new run from its adapter.

        Args:
            steps: total steps, including those of the run; None: as planned.
            dataset, gpus: as for `resume`.

        Raises:
            InputError: the run has no adapter to continue from, or `dataset` is another one.
        """
        act = partial(self._resume_or_extend, run_id, steps, dataset, gpus)
        return await self._in_thread(act, _submissions())

    def _resume_or_extend(
        self,
        run_id: str,
        steps: int | None,
        dataset: str | list[str] | None = None,
        gpus: int | str | None = None,
    ) -> Submission:
        before = self._get(run_id)
        run = self.store.find(before.run_id)
        spec = run.request_now()
        if steps is not None and not isinstance(spec, TrainSpec):
            raise InputError(
                f"Run {before.run_id} is no single training ({spec.kind}): its steps stay as planned.",
                hint="Resume it without steps.",
            )
        longer = steps is not None and steps > (before.total_steps or 0)
        if not longer or not isinstance(spec, TrainSpec) or steps is None:
            again = self._resume(before.run_id, dataset=dataset, gpus=gpus)
            return Submission(again.run_id, existing=False)
        if before.status not in ENDED or before.adapter_path is None:
            raise InputError(
                f"Run {before.run_id} is {before.status} and has no adapter to continue from.",
                hint="First resume it without steps.",
            )
        spec = spec if gpus is None else on_gpus(spec, gpus)
        training = spec.training.model_copy(update={"steps": steps - before.step})
        child: dict[str, Any] = {"parent": before.run_id, "training": training, "output": None}
        if moved := dataset and self._moved(run, dataset):
            child["data"] = spec.data.model_copy(update={"source": moved})
        return self._submit(spec.model_copy(update=child), None, find_equal=True)

    # --- look ---------------------------------------------------------------------------------------
    async def get(self, run_id: str) -> RunView:
        """One run; any unique part of its id is enough.

        Raises:
            RunNotFoundError: no run, or several, match.
            RunFolderError: its folder cannot be read.
        """
        return await self._in_thread(partial(self._get, run_id))

    def _get(self, run_id: str) -> RunView:
        run = self.store.find(run_id)
        found = view(run, self.store.observe(run))
        if found.kind not in TRAININGS:
            return found
        return found.model_copy(update={"losses": self._curve_of(run.path).read().outline})

    async def curve(self, run_id: str) -> LossCurve:
        """The losses of a run so far; raises as `get`."""
        return await self._in_thread(lambda: self._curve_of(self.store.find(run_id).path).read())

    async def gpus_of(self, run_id: str) -> list[GpuReading]:
        """The GPUs on which a running run works, as they are now; raises as `get`."""
        return await self._in_thread(lambda: gpus_of_run(self.store.find(run_id)))

    async def ids(self, part: str = "") -> list[str]:
        """The ids of all runs with this in it, newest first."""
        return await self._in_thread(lambda: [run_id for run_id in self.store.ids() if part in run_id])

    async def runs_changed(self) -> object:
        """Differs from an earlier value when a run has been made, has ended, or has been removed since."""
        return await self._in_thread(self.store.changed)

    async def latest_events(self, run_id: str) -> list[Event]:
        """The newest events, those of the last 64 KiB; raises as `get`."""
        return await self._in_thread(lambda: self.store.find(run_id).latest_events())

    async def log_tail(self, run_id: str) -> str:
        """The last lines that the run's libraries printed: untrusted text; raises as `get`."""
        return await self._in_thread(lambda: log_tail(self.store.find(run_id)))

    async def card(self, run_id: str) -> str | None:
        """The README.md of the run's adapter, with text of the model; None without one. Raises as `get`."""
        return await self._in_thread(lambda: model_card(self.store.find(run_id)))

    async def list(self, status: Status | None = None, limit: int = 10) -> tuple[list[RunLine], list[str]]:
        """The newest runs, and an error message for each unreadable folder."""
        return await self._in_thread(partial(self._list, status, limit))

    def _list(self, status: Status | None, limit: int) -> tuple[list[RunLine], list[str]]:
        lines: list[RunLine] = []
        unreadable: list[str] = []
        found = self.store.folders()
        for run, state in self.store.newest(status, found.ids):
            # An unfinished run has a place in a queue, whatever its kind.
            if isinstance(state, RunState) and state.status in ENDED and not kind_of(state.kind).listed:
                continue
            try:
                if isinstance(state, StateError):
                    raise state
                lines.append(line(run, state))
            except StateError as error:
                unreadable.append(error.sentence())
            if len(lines) + len(unreadable) >= limit:
                break
        foreign = [] if status else sorted(found.foreign)[:FOREIGN_SHOWN]
        return lines, [*unreadable, *map(self._is_no_run, foreign)]

    def _is_no_run(self, name: str) -> str:
        folder = shown_path(self.store.runs)
        return f"{folder}: the folder {quoted(name)} is not a run, as no run has such a name. Move it away."

    async def wait(self, run_id: str) -> RunView:
        """The run, as soon as it has ended."""
        async for _ in self.watch(run_id):
            pass
        return await self.get(run_id)

    async def watch(self, run_id: str, *, tick_s: float = 1.0) -> AsyncGenerator[list[Event]]:
        """The run's events until it has ended; first all existing ones, then new ones as they are written.

        Yields an empty list after `tick_s` seconds without an event, so that the caller can show progress.
        """
        run = await self._in_thread(partial(self.store.find, run_id))

        async def read(offset: int) -> News:
            return await self._in_thread(partial(self._news, run, offset))

        with tail_of(run.path, read) as tail:
            news = News(ended=False, events=[], end=0)
            while True:
                news = News(ended=False, events=[], end=news.end)
                with anyio.move_on_after(tick_s):
                    news = await tail.after(news.end)
                if news.ended and not news.events:
                    return
                yield news.events

    def _news(self, run: RunFolder, offset: int) -> News:
        # The state is read before the events, since a run writes its last event before its last state.
        ended = self.store.observe(run).status in ENDED
        return News(ended, *run.events(offset))

    # --- stop ---------------------------------------------------------------------------------------
    async def cancel(self, run_id: str, reason: str = "requested by the user") -> RunView:
        """Request that a run stops within one step and saves its adapter. Does not wait for it."""
        return await self._in_thread(partial(self._cancel, run_id, reason))

    def _cancel(self, run_id: str, reason: str) -> RunView:
        run = self.store.find(run_id)
        state = self.store.observe(run)
        if state.status in ENDED:
            return view(run, state)
        if state.cluster is not None:
            run.request_cancel(reason)
            self.store.cancel_waiting(run, state)
            return view(run, state)
        if not same_host(state.host):
            raise InputError(
                f"Run {run.run_id} is running on {state.host}, not on this machine.",
                hint=f"Cancel it on {state.host}.",
            )
        run.request_cancel(reason)
        if state.pid is None or state.boot_id != boot_id():
            self.dispatch.start(run)  # no worker sees the request: a new one only records the cancellation
        return view(run, state)

    async def delete(self, run_id: str) -> str:
        """Remove an ended run permanently; returns its id."""

        def delete() -> str:
            run = self.store.find(run_id)
            self.store.delete(run)
            return run.run_id

        return await self._in_thread(delete)

    async def _in_thread(self, action: Callable[[], Value], limiter: CapacityLimiter | None = None) -> Value:
        """The value of `action`; an error of the operating system becomes one of ours."""

        def act() -> Value:
            try:
                return action()
            except BackpropagateError:
                raise
            except OSError as error:
                raise system_error(error, self.settings.home) from error

        return await anyio.to_thread.run_sync(act, limiter=limiter)


def _train_spec_of(arguments: Mapping[str, Any], defaults: Settings) -> TrainSpec:
    spec = train_spec(defaults, arguments=with_resolved_paths(arguments, defaults))
    check_output(spec.output)
    for note in alias_notes(arguments):
        logger().warning(note)
    return spec


def _stopped_with_the_call() -> bool:
    """False; raises the cancellation of the call that this thread works for."""
    anyio.from_thread.check_cancelled()
    return False


def _submissions() -> CapacityLimiter:
    """The threads of calls that read data or wait for locks: others still answer when these are all busy."""
    try:
        return _limiter.get()
    except LookupError:
        _limiter.set(CapacityLimiter(SUBMITTING))
        return _limiter.get()
