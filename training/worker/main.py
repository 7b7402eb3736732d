"""One run, carried out in a process of its own: `python -P -m backpropagate.training.worker.main RUN_FOLDER`.

Takes the run's lock, checks the data, waits for its turn, and only then imports anything heavy.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from ..config.settings import Settings, load_settings
from ..errors import TrainingAbortedError
from ..hardware.devices import use_device
from ..logs import configure_logging
from ..runs.device_queue import Line, default_runtime_folder
from ..runs.folder import ENDED, RunFolder
from ..runs.kinds import needs_of
from ..runs.recorder import Journal
from ..runs.store import LEAVING_S, RunStore
from .context import Work

LOOK_S = 0.2  # how often the worker looks whether it should stop, and whether its turn has come
GRACE_S = 3.0  # for work that cannot be stopped: imports, downloads, loading, compiling
STEP_GRACE_S = 300.0  # for a step to end and the adapter to be saved
STEPPING = frozenset({"training", "saving", "answering"})


def main() -> int:
    """Carry out the run whose folder is the first argument."""
    run = RunFolder(Path(sys.argv[1]))
    lock = run.lock()
    if not lock.try_acquire(LEAVING_S):  # the attempt before may still be leaving
        return 0  # another worker has taken it up
    if run.state().status in ENDED:
        return 0
    settings = load_settings()
    configure_logging(settings)
    _step_back()
    journal = Journal(RunStore(run.path.parent.parent), run)
    try:
        journal.begin(survives_client="dies-with-client" not in sys.argv)
        _carry_out(run, journal, settings)
    except TrainingAbortedError:
        journal.cancelled(None)
    except BaseException as error:  # the run must not end without a word
        journal.log.exception("run_failed")
        journal.failed(error)
    return 0


def _carry_out(run: RunFolder, journal: Journal, settings: Settings) -> None:
    spec = run.spec()
    line = Line(settings.runtime_dir or default_runtime_folder(), needs_of(spec).lane)
    watcher = Watcher(run, journal)
    try:
        line.hold_place(run.run_id)
        work = Work(run, journal, watcher.should_stop, settings.home)
        _work_of(spec.kind)(work, lambda: _wait_for_turn(run, journal, line, watcher))
    finally:
        line.leave(run.run_id)


def _work_of(kind: str) -> Callable[[Work, Callable[[], None]], None]:
    """What carries out a run of this kind; imported only here, since it may be heavy."""
    match kind:
        case "inspect":
            from .inspect import carry_out
        case "export":
            from .export import carry_out
        case "register":
            from .register import carry_out
        case "push":
            from .push import carry_out
        case _:
            from .train import carry_out
    return carry_out


def _step_back() -> None:
    """Give way to the server, the client and the desktop."""
    if sys.platform == "win32":
        import psutil

        psutil.Process().nice(psutil.BELOW_NORMAL_PRIORITY_CLASS)
    else:
        os.nice(10)


def _wait_for_turn(run: RunFolder, journal: Journal, line: Line, watcher: Watcher) -> None:
    """Wait for a device, first come first served, and make it the only one that torch will see.

    Raises:
        TrainingAbortedError: the run was cancelled while it waited.
    """
    needs = needs_of(run.spec())
    shown = -1
    while (device := line.try_take(run.run_id, needs.slots)) is None:
        ahead = line.ahead(run.run_id)
        if ahead != shown:
            shown = ahead
            journal.phase("waiting", _waiting_message(ahead), ahead=ahead)
        if watcher.should_stop():
            raise TrainingAbortedError("Cancelled while waiting.")
        time.sleep(LOOK_S)
    if needs.device:
        use_device(device)
    journal.running()


def _waiting_message(ahead: int) -> str:
    if ahead == 0:
        return "waiting for the device: next in line"
    return f"waiting for the device: {ahead} run{'s' if ahead > 1 else ''} ahead"


class Watcher:
    """Sees a request to stop, and ends the process where the work itself cannot.

    A step, a wait and a row of data look at `should_stop`. A download, an import or a compilation does
    not: then the watcher writes that the run is cancelled and leaves.
    """

    def __init__(self, run: RunFolder, journal: Journal) -> None:
        self._run = run
        self._journal = journal
        self._asked = threading.Event()
        threading.Thread(target=self._watch, daemon=True, name="cancel-watcher").start()

    def should_stop(self) -> bool:
        return self._asked.is_set()

    def _watch(self) -> None:
        while not self._run.cancel_requested():
            time.sleep(LOOK_S)
        self._asked.set()
        asked = time.monotonic()
        while time.monotonic() - asked < (STEP_GRACE_S if self._journal.phase_name in STEPPING else GRACE_S):
            time.sleep(LOOK_S)
        self._leave()

    def _leave(self) -> NoReturn:
        self._run.discard_parts()  # the work that would tidy up is not waited for
        self._journal.cancelled(None)
        os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
