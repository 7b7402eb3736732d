"""The worker process of one run: `python -P -m backpropagate.training.worker.main RUN_FOLDER`.

Takes the run's lock, checks the data, waits for the device, and only then imports heavy libraries.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from ..clusters.hosts import Hosts
from ..config.settings import Settings, load_settings
from ..config.specs import AnySpec, GenerateSpec
from ..errors import BackpropagateError, TrainingAbortedError
from ..events import Phase
from ..hardware.devices import CPU, ON_CPU, use_device
from ..logs import configure_logging, lines_of_run
from ..runs.device_queue import DeviceQueue, DeviceRequest, default_runtime_folder
from ..runs.folder import ENDED, RunFolder
from ..runs.kinds import device_request, kind_of
from ..runs.locks import FOREVER, Lock
from ..runs.model_stamp import model_key
from ..runs.recorder import RunRecorder
from ..runs.store import LEAVING_S, RunStore
from ..telemetry import configure_telemetry
from .attend import GRACE_S, STEP_GRACE_S
from .attendant import attend_on_first
from .context import RunContext
from .given_hosts import given_hosts, hosts_of, on_first
from .job_watch import LOOK_S as NETWORK_LOOK_S
from .job_watch import asked_in_job, save_before_the_end
from .kernel_cache import use_kernel_cache
from .notice import notify
from .run_span import run_span
from .temperature_guard import TemperatureGuard
from .warm import Keeper, left_to_keeper
from .with_parent import WITH_PARENT, end_with_parent

LOOK_S = 0.2  # interval of the checks for a request to stop and for a free device
STEPPING = frozenset({"training", "saving", "answering"})


def main() -> int:
    """Execute the run whose folder is the first argument."""
    run = RunFolder(Path(sys.argv[1]))
    settings = load_settings()
    attended = WITH_PARENT in sys.argv  # by a process of another host, which has the lock
    if attended:
        end_with_parent()
    if left_to_keeper(run, settings):
        return 0
    state, lock = run.state(), run.lock()
    if state.cluster is None and not attended:
        if not lock.try_acquire(LEAVING_S):  # the worker of the previous attempt may still be exiting
            return 0  # another worker executes the run
        state = run.state()
    if state.status in ENDED:
        return 0
    configure_logging(settings)
    configure_telemetry()
    if not attended and (hosts := _hosts_elsewhere(run, settings)):
        attend_on_first(run, hosts, settings)
        return 0
    lower_priority()
    keepers: list[Keeper] = []
    carry_out = partial(_carry_out, settings)
    carry_out(run, lock, lambda context: keepers.extend(_execute(context, settings)))
    for keeper in keepers:
        keeper.serve(carry_out)
        os._exit(0)  # a GPU's memory becomes free together with its slot
    return 0


def _hosts_elsewhere(run: RunFolder, settings: Settings) -> Hosts | None:
    """The hosts of a run, if the first is not this machine."""
    try:
        hosts = hosts_of(run.spec(), settings.home)
    except BackpropagateError:
        return None  # said by whoever carries the run out
    return hosts if hosts and not hosts.first.is_here() else None


def _carry_out(settings: Settings, run: RunFolder, lock: Lock, work: Callable[[RunContext], object]) -> None:
    with lines_of_run(run.run_id):
        with run_span(run):
            _record(settings, run, work)
        lock.release()  # a slow webhook must not keep the run from being resumed or removed
        notify(run, settings.notify)


def _record(settings: Settings, run: RunFolder, work: Callable[[RunContext], object]) -> None:
    """Do the work of a run, and record how it ended."""
    home = run.path.parent.parent
    recorder = RunRecorder(RunStore(home), run)
    watcher = None
    try:
        attended = WITH_PARENT in sys.argv
        recorder.begin(survives_client="dies-with-client" not in sys.argv, attended=attended)
        if run.state().cluster is not None:
            save_before_the_end(recorder)
        watcher = CancelWatcher(run, recorder, far=attended or run.state().cluster is not None)
        guard = TemperatureGuard(recorder, watcher.should_stop, settings.gpu)
        work(RunContext(run, recorder, guard.should_stop, home, own_process=True))
        recorder.require_end()
    except TrainingAbortedError:
        recorder.cancelled(None)
    except BaseException as error:  # the run must not end without a record
        recorder.log.exception("run_failed")
        recorder.failed(error)
    finally:
        if watcher is not None:
            watcher.end()


def _execute(context: RunContext, settings: Settings) -> list[Keeper]:
    """Execute the run; if it has loaded a model that later runs can ask, the keeper of that model."""
    run, spec = context.run, context.run.request_now()
    if run.state().cluster is not None:  # its scheduler has given the job its device
        request = device_request(spec)
        _module_of(spec).run(context, lambda: _use(context, request, request.slots[: request.at_once]))
        return []
    hosts = hosts_of(spec, context.home)
    request = device_request(on_first(spec, hosts))
    queue = DeviceQueue(settings.runtime_dir or default_runtime_folder(), request.queue, FOREVER)
    try:
        queue.hold_place(run.run_id)
        with given_hosts(run, hosts, spec) as given:
            context = replace(context, give_back=queue.keep_first, hosts=given)
            model = _module_of(spec).run(context, lambda: _wait_for_device(context, queue, request))
    finally:
        queue.leave(run.run_id)
    if not isinstance(spec, GenerateSpec) or not settings.keep_model_s:
        return []
    device = next(iter(context.recorder.devices), CPU)
    return [Keeper(model, model_key(spec), queue, device, run.path.parent, settings.keep_model_s)]


def _module_of(spec: AnySpec) -> Any:
    """The module with the `run` of a kind; imported late, since it may be heavy."""
    return import_module(f".{kind_of(spec.kind).name}", __package__)


@cache
def lower_priority() -> None:
    """Lower the priority, once, so that the server, the client and the desktop stay responsive."""
    if sys.platform == "win32":
        import psutil

        psutil.Process().nice(psutil.BELOW_NORMAL_PRIORITY_CLASS)
    else:
        os.nice(10)


def _wait_for_device(context: RunContext, queue: DeviceQueue, request: DeviceRequest) -> None:
    """Wait in the queue for the run's devices, and make the first the only one that torch sees.

    Raises:
        TrainingAbortedError: the run was cancelled while it was waiting.
    """
    run_id, shown = context.run.run_id, -1
    while not (devices := queue.try_take_several(run_id, request.slots, request.at_once)):
        ahead = queue.ahead(run_id)
        if ahead != shown:
            shown = ahead
            context.report(Phase(phase="waiting", message=_waiting_message(ahead), ahead=ahead))
        if context.should_stop():
            raise TrainingAbortedError("Cancelled while waiting.")
        time.sleep(LOOK_S)
    if context.hosts is not None:
        context.hosts.take(context, request.queue)
    _use(context, request, devices)


def _use(context: RunContext, request: DeviceRequest, devices: Sequence[str]) -> None:
    if request.needs_device:
        use_device(devices[0])
        if devices[0] == CPU:
            for name, value in ON_CPU.items():
                os.environ.setdefault(name, value)
        elif context.run.state().cluster is None:  # a cluster's nodes may share the home
            use_kernel_cache(context.home / "cache")
    context.recorder.running(*(devices if request.needs_device else ()))


def _waiting_message(ahead: int) -> str:
    if ahead == 0:
        return "waiting for the device: first in the queue"
    return f"waiting for the device: {ahead} run{'s' if ahead > 1 else ''} ahead"


class CancelWatcher:
    """Watches for a request to stop, and exits the process if the work itself cannot stop.

    Steps, waits and rows of data check `should_stop`. A download, an import or a compilation does not: then
    the watcher records that the run is cancelled and exits the process.

    Args:
        far: whether the run is another machine's, which it shares a file system with.
    """

    def __init__(self, run: RunFolder, recorder: RunRecorder, *, far: bool) -> None:
        self._run = run
        self._recorder = recorder
        self._is_asked = partial(asked_in_job, recorder) if far else run.cancel_requested
        self._look_s = NETWORK_LOOK_S if far else LOOK_S
        self._asked, self._ended = threading.Event(), threading.Event()
        threading.Thread(target=self._watch, daemon=True, name="cancel-watcher").start()

    def should_stop(self) -> bool:
        return self._asked.is_set()

    def end(self) -> None:
        """The run has ended; the process may go on with another."""
        self._ended.set()

    def _watch(self) -> None:
        while not self._is_asked():
            if self._ended.wait(self._look_s):
                return
        self._asked.set()
        asked = time.monotonic()
        while time.monotonic() - asked < (STEP_GRACE_S if self._recorder.phase_name in STEPPING else GRACE_S):
            if self._ended.wait(LOOK_S):
                return
        self._leave()

    def _leave(self) -> NoReturn:
        self._run.discard_parts()  # the work cannot clean up after itself
        self._recorder.cancelled(None)
        os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
