"""TrainingService: starts, follows, lists and cancels the runs of a home folder.

It is in the caller's process and has no state except paths: the run folders contain the state. Each run has
its own worker process, which can outlive this one.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import threading
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar, Unpack

import anyio
import anyio.from_thread
import anyio.to_thread
from anyio import CapacityLimiter
from anyio.lowlevel import RunVar

from .config.arguments import TrainArguments
from .config.results import RegisterResult
from .config.settings import Settings, load_settings
from .config.specs import (
    AnySpec,
    DataGroup,
    DataSpec,
    EvaluateSpec,
    ExportSpec,
    ModelGroup,
    ModelReference,
    ModelSpec,
    MultiRunSpec,
    RegisterSpec,
    TrainingSpec,
    TrainSpec,
)
from .errors import (
    BackpropagateError,
    InputError,
    MissingExtraError,
    RunFolderError,
    RuntimeFailure,
    StateError,
)
from .events import Event
from .files.output_folder import check_output
from .files.paths import PathPolicy
from .files.system_error import system_error
from .logs import logger
from .models.llama_like import check_target_modules
from .models.model_folder import require_small_files
from .models.presets import classify_model
from .next_step import then
from .requests.argument_paths import with_resolved_paths
from .requests.export import check_export_output
from .requests.multi_run import multi_run_spec_of
from .requests.settings import alias_notes
from .requests.train import train_spec
from .runs.device_queue import DeviceQueue, default_runtime_folder
from .runs.folder import ENDED, RunFolder, RunState, Status
from .runs.identity import boot_id, is_recent, same_host
from .runs.kinds import EXTRAS, device_request, kind_of, libraries_of
from .runs.model_stamp import model_stamp
from .runs.stopped import stopped_multi_run
from .runs.store import RunStore
from .runs.view import RunView, view
from .untrusted import quoted, shown_path
from .worker.attend import attend
from .worker.spawn import spawn_worker

Value = TypeVar("Value")

POLL_S = 0.05
POLLS_PER_S = 200  # of all followers together, so that many do not keep other calls waiting
FOREIGN_SHOWN = 5
SUBMITTING = 16  # calls
_limiter: RunVar[CapacityLimiter] = RunVar("submissions")  # one for each event loop
STARTING_S = 20.0  # after this time, a queued run without a worker is started again


@dataclass(frozen=True)
class Submission:
    """The run of a request, and whether an earlier equal request created it.

    Args:
        stopped: the run of an earlier equal request, if it was stopped and could be resumed instead.
        by_key: whether the request's key was known; else an existing run was found by its equal request.
        resumable: of a multi-run, an earlier one with the same model and datasets that was stopped.
    """

    run_id: str
    existing: bool
    stopped: str | None = None
    by_key: bool = False
    resumable: str | None = None


class TrainingService:
    """Start, follow, list and cancel runs.

    Args:
        settings: defaults of runs, home folder, workers' Python; read from the environment by default.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or load_settings()
        self.store = RunStore(self.settings.home)
        self._watching = 0

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
        self, spec: AnySpec, *, request_key: str | None = None, find_equal: bool = False
    ) -> Submission:
        """Create the run folder and start the worker.

        Args:
            request_key: a name for this request; the same key with the same spec returns the same run.
            find_equal: if the key is new, or without one, return an existing run with equal spec and equal
                dataset content that is queued, running, or completed within two minutes.

        Raises:
            InputError: the model name, a target module, the dataset or the request key cannot be used.
            QueueFullError: twenty runs are waiting.
            DiskFullError: the disk is full; nothing of the run is kept.
        """
        return await self._in_thread(partial(self._submit, spec, request_key, find_equal), _submissions())

    def _submit(self, spec: AnySpec, request_key: str | None, find_equal: bool) -> Submission:
        # Here: a server answers its first request without the readers of datasets.
        from .data.local_source import content_of

        spec = _with_absolute_model(spec)
        policy = PathPolicy.from_record(spec.roots, self.settings.home)
        _permit_links(spec, policy)
        _check_target_modules(spec)
        self._require_libraries(spec)
        contents = [content_of(data, policy.permit, _stopped_with_the_call) for data in _datasets(spec)]
        content = " ".join(filter(None, [*contents, _stamp(spec)]))
        fingerprint = _fingerprint(spec, content)
        resumable = stopped_multi_run(self.store, spec) if isinstance(spec, MultiRunSpec) else None
        found = self.store.for_request(spec, request_key, fingerprint, find_equal)
        if found.existing and not found.by_key and _is_gone(found.run):
            found = self.store.for_request(spec, request_key, fingerprint, find_equal, instead_of=found.run)
        if not found.existing:
            self._queue(found.run, spec)
        if not found.existing or _was_never_started(self.store.observe(found.run)):
            self._start(found.run)
        stopped = found.stopped.run_id if found.stopped else None
        resumable = None if found.existing else resumable
        return Submission(found.run.run_id, found.existing, stopped, found.by_key, resumable)

    def _require_libraries(self, spec: AnySpec) -> None:
        """Check for the worker's libraries before it waits; not possible for another interpreter."""
        if self.settings.python is not None:
            return
        for library in libraries_of(spec):
            if find_spec(library) is None:
                raise MissingExtraError(
                    f"{library} is not installed.", hint=f'pip install "backpropagate-mcp[{EXTRAS[library]}]"'
                )

    def _queue(self, run: RunFolder, spec: AnySpec) -> None:
        try:
            if isinstance(spec, ExportSpec):
                check_export_output(spec)  # an equal request that was found has written it
            DeviceQueue(self.runtime_folder, device_request(spec).queue).join(run.run_id)
        except Exception:
            self.store.delete_unstarted(run)
            raise

    def _start(self, run: RunFolder) -> None:
        attempt = run.state().attempt
        try:
            process = spawn_worker(run, self.settings, self.runtime_folder)
        except OSError as error:
            self._could_not_start(run, attempt, error.strerror or type(error).__name__)
            return
        # Without a wait for its exit status the child would remain as a zombie.
        threading.Thread(target=self._reap, args=(run, attempt, process), daemon=True).start()

    def _reap(self, run: RunFolder, attempt: int, process: subprocess.Popen[bytes]) -> None:
        with suppress(StateError, OSError):  # the run may have been removed
            attend(process, run, self.store)
        code = process.wait()
        with suppress(RunFolderError, OSError):
            log = shown_path(run.log_path)
            self._could_not_start(run, attempt, f"exit code {code}; details are in {log}")

    def _could_not_start(self, run: RunFolder, attempt: int, reason: str) -> None:
        """Fail a run whose worker exited before it started this attempt."""
        error = RuntimeFailure(
            f"The run's worker could not start ({reason}).",
            hint="Check the installation; BACKPROPAGATE_PYTHON sets the interpreter.",
            next=then("show_settings"),
        )
        self.store.fail_unstarted(run, attempt, error.record())

    @property
    def runtime_folder(self) -> Path:
        return self.settings.runtime_dir or default_runtime_folder()

    async def recover(self) -> None:
        """Start the queued runs that have no worker, and record the interrupted ones."""
        await self._in_thread(self._recover)

    def _recover(self) -> None:
        self.store.sweep()
        for run in self.store.unfinished():
            with suppress(StateError, OSError):  # `list` returns the error
                if _needs_a_worker(self.store.observe(run)):
                    self._start(run)

    async def resume(self, run_id: str, *, allow_other_base: bool = False) -> RunView:
        """Queue an ended run again: the same folder, a new attempt, from its last checkpoint.

        A queued or running run is not changed.

        Args:
            allow_other_base: accept a base model that has changed since the training began.

        Raises:
            InputError: it has completed, or belongs to another machine.
            QueueFullError: twenty runs are waiting.
        """
        return await self._in_thread(partial(self._resume, run_id, allow_other_base), _submissions())

    def _resume(self, run_id: str, allow_other_base: bool = False) -> RunView:
        run = self.store.find(run_id)
        state = self.store.observe(run)
        if state.status in ENDED and self.store.requeue(
            run, state.attempt, allow_other_base=allow_other_base
        ):
            try:
                DeviceQueue(self.runtime_folder, device_request(run.spec()).queue).join(run.run_id)
            except Exception:
                self.store.undo_requeue(run, state)
                raise
            self._start(run)
        return view(run, run.state())

    async def resume_or_extend(self, run_id: str, steps: int | None = None) -> Submission:
        """Resume a run; or, for more steps than planned, start a new run from its adapter.

        Args:
            steps: total steps, including those of the run; None: as planned.

        Raises:
            InputError: the run has no adapter to continue from.
        """
        return await self._in_thread(partial(self._resume_or_extend, run_id, steps), _submissions())

    def _resume_or_extend(self, run_id: str, steps: int | None) -> Submission:
        before = self._get(run_id)
        spec = self.store.find(before.run_id).spec()
        if steps is not None and not isinstance(spec, TrainSpec):
            raise InputError(
                f"Run {before.run_id} is no single training ({spec.kind}): its steps stay as planned.",
                hint="Resume it without steps.",
            )
        longer = steps is not None and steps > (before.total_steps or 0)
        if not longer or not isinstance(spec, TrainSpec) or steps is None:
            return Submission(self._resume(before.run_id).run_id, existing=False)
        if before.status not in ENDED or before.adapter_path is None:
            raise InputError(
                f"Run {before.run_id} is {before.status} and has no adapter to continue from.",
                hint="First resume it without steps.",
            )
        training = spec.training.model_copy(update={"steps": steps - before.step})
        child = {"parent": before.run_id, "training": training, "output": None}
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
        return view(run, self.store.observe(run))

    async def list(self, status: Status | None = None, limit: int = 10) -> tuple[list[RunView], list[str]]:
        """The newest runs, and an error message for each unreadable folder."""
        return await self._in_thread(partial(self._list, status, limit))

    def _list(self, status: Status | None, limit: int) -> tuple[list[RunView], list[str]]:
        views: list[RunView] = []
        unreadable: list[str] = []
        for run, state in self.store.newest(status):
            # An unfinished run has a place in a queue, whatever its kind.
            if isinstance(state, RunState) and state.status in ENDED and not kind_of(state.kind).listed:
                continue
            try:
                if isinstance(state, StateError):
                    raise state
                views.append(view(run, state))
            except StateError as error:
                unreadable.append(error.sentence())
            if len(views) + len(unreadable) >= limit:
                break
        return views, [*unreadable, *self._foreign(status)]

    def _foreign(self, status: Status | None) -> list[str]:
        """One line for each folder that cannot be a run."""
        if status is not None:
            return []
        return [
            f"{shown_path(self.store.runs)}: the folder {quoted(name)} is not a run, as no run has "
            "such a name. Move it away."
            for name in self.store.foreign()[:FOREIGN_SHOWN]
        ]

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
        self._watching += 1
        try:
            async for events in self._watch(run, tick_s):
                yield events
        finally:
            self._watching -= 1

    async def _watch(self, run: RunFolder, tick_s: float) -> AsyncGenerator[list[Event]]:
        offset = 0
        quiet_s = 0.0
        while True:
            ended, events, offset = await self._in_thread(partial(self._news, run, offset))
            pause_s = max(POLL_S, self._watching / POLLS_PER_S)
            quiet_s += pause_s
            if ended and not events:
                return
            if events or quiet_s >= tick_s:
                quiet_s = 0.0
                yield events
            await anyio.sleep(0 if ended else pause_s)

    def _news(self, run: RunFolder, offset: int) -> tuple[bool, list[Event], int]:
        """Whether the run has ended, its events from `offset` on, and the offset after them."""
        # The state is read before the events, since a run writes its last event before its last state.
        ended = self.store.observe(run).status in ENDED
        return ended, *run.events(offset)

    # --- stop ---------------------------------------------------------------------------------------
    async def cancel(self, run_id: str, reason: str = "requested by the user") -> RunView:
        """Request that a run stops within one step and saves its adapter. Does not wait for it."""
        return await self._in_thread(partial(self._cancel, run_id, reason))

    def _cancel(self, run_id: str, reason: str) -> RunView:
        run = self.store.find(run_id)
        state = self.store.observe(run)
        if state.status in ENDED:
            return view(run, state)
        if not same_host(state.host):
            raise InputError(
                f"Run {run.run_id} is running on {state.host}, not on this machine.",
                hint=f"Cancel it on {state.host}.",
            )
        run.request_cancel(reason)
        if state.pid is None or state.boot_id != boot_id():
            self._start(run)  # no worker sees the request: a new one starts only to record the cancellation
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


def _with_absolute_model(spec: AnySpec) -> AnySpec:
    """The spec with an absolute model folder, since the worker has another working folder."""
    if not isinstance(spec, DataSpec | ModelSpec):
        return spec
    changed: dict[str, Any] = {"model": _absolute(spec.model)}
    if isinstance(spec, EvaluateSpec) and spec.against:
        against = spec.against.model_copy(update={"model": _absolute(spec.against.model)})
        changed["against"] = against
    return spec.model_copy(update=changed)


def _absolute(model: ModelGroup) -> ModelGroup:
    source = classify_model(model.name)
    return model.model_copy(update={"name": source.location}) if source.kind == "folder" else model


def _datasets(spec: AnySpec) -> list[DataGroup]:
    """The datasets that a run reads, as far as its request names them."""
    if isinstance(spec, DataSpec):
        return spec.datasets
    return [spec.data] if isinstance(spec, EvaluateSpec) and spec.data.source is not None else []


def _models(spec: AnySpec) -> Sequence[DataSpec | ModelReference]:
    if isinstance(spec, EvaluateSpec):
        return spec.models
    return [spec] if isinstance(spec, DataSpec | ModelSpec) else []


def _is_gone(run: RunFolder) -> bool:
    """Whether the run made something elsewhere that is not there any more: a model of an Ollama server."""
    result = run.state().result
    if not isinstance(result, RegisterResult):
        return False
    from .export.ollama.register import is_registered

    return not is_registered(result.name, result.digest)


def _permit_links(spec: AnySpec, policy: PathPolicy) -> None:
    """Check the links of a local model before any of its files is read; the worker checks them again."""
    for one in _models(spec):
        source = classify_model(one.model.name)
        if source.kind == "folder":
            policy.permit_links(Path(source.location), "model")
            require_small_files(Path(source.location))


def _stamp(spec: AnySpec) -> str:
    """Size and time of the run's input files: a rewritten file, e.g. by a resumed run, is a new request."""
    if isinstance(spec, ModelSpec):
        return " ".join(model_stamp(one) for one in _models(spec) if isinstance(one, ModelReference))
    if not isinstance(spec, RegisterSpec) or not Path(spec.gguf).is_file():
        return ""
    found = Path(spec.gguf).stat()
    return f"{found.st_size} {found.st_mtime_ns}"


def _check_target_modules(spec: AnySpec) -> None:
    """Check the target modules of a local model before it is loaded; a Hub model may not be here yet."""
    if not isinstance(spec, TrainingSpec):
        return
    source = classify_model(spec.model.name)
    if source.kind == "folder":
        check_target_modules(Path(source.location), spec.lora.target_modules)


def _stopped_with_the_call() -> bool:
    """False; raises the cancellation of the call that this thread works for."""
    anyio.from_thread.check_cancelled()
    return False


def _was_never_started(state: RunState) -> bool:
    return state.status is Status.QUEUED and state.pid is None and same_host(state.host)


def _needs_a_worker(state: RunState) -> bool:
    if state.status is not Status.QUEUED or not same_host(state.host):
        return False
    if state.boot_id != boot_id():
        return True
    return state.pid is None and not is_recent(state.queued_at or state.created_at, STARTING_S)


def _fingerprint(spec: AnySpec, content: str) -> str:
    """Hash of the inputs of a run: its spec and the content of its dataset."""
    request = json.dumps(spec.arguments(), sort_keys=True)
    return hashlib.sha256(f"{request}\n{content}".encode()).hexdigest()


def _submissions() -> CapacityLimiter:
    """The threads of calls that read data or wait for locks: others still answer when these are all busy."""
    try:
        return _limiter.get()
    except LookupError:
        _limiter.set(CapacityLimiter(SUBMITTING))
        return _limiter.get()
