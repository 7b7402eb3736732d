"""The worker's end of the trackers of a run: a child process for each, of which nothing is waited for.

A child reads the run's events from their file, so that the training does nothing for it. At the end of the
run the children get a few seconds to send the rest; what has not ended by then is killed.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Literal

from pydantic import ValidationError

from ..config.results import TrackerRecord
from ..config.tracker_names import TrackerName
from ..runs.folder import RunFolder
from ..untrusted import one_line, quoted, shown_path
from .facts import tracker_run
from .main import Ending, Said

CLOSE_S = 10.0
# CREATE_NEW_PROCESS_GROUP | CREATE_NO_WINDOW | BELOW_NORMAL_PRIORITY_CLASS
WINDOWS_FLAGS = 0x00000200 | 0x08000000 | 0x00004000

Warn = Callable[[str], None]


class Child:
    """The process of one tracker.

    Args:
        after: the number of the last event before this attempt.
        warn: told of a failure once, as soon as it is known; may be called by another thread.
    """

    def __init__(self, name: TrackerName, run: RunFolder, after: int, warn: Warn) -> None:
        self._name, self._run, self._warn = name, run, warn
        self._place: str | None = None
        self._problem: str | None = None
        self._state: Literal["complete", "failed", "unfinished"] = "unfinished"
        self._killed = False
        self._process = self._spawn(after)
        self._listener = threading.Thread(target=self._listen, daemon=True, name=f"tracker-{name}")
        self._listener.start()

    def send_end(self, ending: Ending) -> None:
        """Tell it how the run ended."""
        assert self._process.stdin
        with suppress(OSError), self._process.stdin as stdin:  # it may be gone
            stdin.write(ending.model_dump_json().encode() + b"\n")

    def finish(self, until: float) -> TrackerRecord:
        """What it was told, once it has ended; it is killed at `until`, a time of the monotonic clock."""
        self._listener.join(max(0.0, until - time.monotonic()))
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(max(0.1, until - time.monotonic()))
        if self._process.poll() is None:
            self._killed = True
            self._process.kill()
            self._process.wait()
        self._listener.join()
        if self._state == "unfinished":
            late = "taken everything" if self._place else "answered"
            self._problem = f"it had not {late} {CLOSE_S:.0f} s after the end of the training"
            self._warn(f"{self._name} lacks values of this run: {self._problem}.")
        run = tracker_run(self._run)
        return TrackerRecord(
            name=self._name, run=run, place=self._place, state=self._state, problem=self._problem
        )

    def _spawn(self, after: int) -> subprocess.Popen[bytes]:
        arguments = [self._name, str(self._run.path), str(after)]
        command = [sys.executable, "-P", "-m", f"{__package__}.main", *arguments]
        with self._run.log_path.open("ab") as log:
            return subprocess.Popen(
                command,
                cwd=self._run.path.parent,
                env=os.environ | {"PYTHONUTF8": "1"},  # libraries print what Windows' code pages do not have
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                # Ctrl-C in a terminal is for the training, which tells its trackers how it ended.
                start_new_session=sys.platform != "win32",
                creationflags=WINDOWS_FLAGS if sys.platform == "win32" else 0,
            )

    def _listen(self) -> None:
        """Take note of what it says until it has ended."""
        assert self._process.stdout
        with self._process.stdout as stdout:
            for line in stdout:
                with suppress(ValidationError):
                    self._note(Said.model_validate_json(line))
        if self._state == "unfinished" and not self._killed:
            self._fail("its process exited unexpectedly")

    def _note(self, said: Said) -> None:
        if said.place:
            self._place = shown_place(said.place, self._run.run_id)
        if said.sent:
            self._state = "complete"
        if said.failed:
            self._fail(f"{quoted(said.failed)}, see {shown_path(self._run.log_path)}")

    def _fail(self, problem: str) -> None:
        self._state, self._problem = "failed", problem
        self._warn(f"{self._name} is not told of this run any more: {problem}. The training is not affected.")


class Children:
    """The trackers of one attempt of a run.

    Args:
        after, warn: see `Child`.
    """

    def __init__(self, names: list[TrackerName], run: RunFolder, after: int, warn: Warn) -> None:
        self._children: list[Child] = []
        for name in names:
            try:
                self._children.append(Child(name, run, after, warn))
            except OSError as error:
                warn(f"{name} is not told of this run: its process did not start ({type(error).__name__}).")

    def end(self, ending: Ending) -> list[TrackerRecord]:
        """Tell them how the run ended, and return what each of them was told."""
        for child in self._children:
            child.send_end(ending)
        until = time.monotonic() + CLOSE_S
        return [child.finish(until) for child in self._children]


def shown_place(place: str, run_id: str) -> str:
    """An address without credentials and query, or a path. A library said it; the run's id in it is ours."""
    line = one_line(place, 1000).replace(run_id, "{run}")
    line = re.sub(r"//[^/@]*@", "//", line)
    if line.startswith(("http://", "https://")):
        line = re.split(r"[?#]", line)[0]
    return shown_path(line).replace("{run}", run_id)
