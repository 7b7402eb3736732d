"""Puts recorded runs on their way: the queue of this machine or of a cluster, and the worker's process."""

from __future__ import annotations

import subprocess
import sys
import threading
from contextlib import suppress
from functools import partial
from pathlib import Path

from ..clusters.host_check import require_hosts
from ..clusters.hosts import Hosts
from ..config.settings import Settings
from ..config.specs import AnySpec
from ..errors import RunFolderError, RuntimeFailure, StateError
from ..logs import logger
from ..next_step import then
from ..runs.cluster_job import cluster_of
from ..runs.device_queue import DeviceQueue, default_runtime_folder
from ..runs.folder import RunFolder, RunState, Status
from ..runs.identity import boot_id, is_recent, same_host
from ..runs.kinds import device_request
from ..runs.store import RunStore
from ..untrusted import shown_path
from ..worker.attend import attend
from ..worker.given_hosts import hosts_of, on_first
from ..worker.notice import notify
from ..worker.spawn import spawn_worker
from ..worker.submit_job import submit_job
from .spare_worker import ANNOUNCING, SpareWorker

STARTING_S = 20.0  # after this time, a queued run without a worker is started again


class Dispatch:
    """The way of runs from their folder to a worker.

    Args:
        store: the owner's, which knows the runs of all principals.

    Attributes:
        spare: a worker that is ready before there is a run, where one is kept.
    """

    def __init__(self, store: RunStore, settings: Settings) -> None:
        self._store, self._settings = store, settings
        self.spare = SpareWorker(settings, self.runtime_folder)

    @property
    def runtime_folder(self) -> Path:
        """Where the queues of this machine are."""
        return self._settings.runtime_dir or default_runtime_folder()

    def queue(self, run: RunFolder, spec: AnySpec) -> None:
        """Join the queue of this machine, or of the cluster that is to carry the run out.

        Raises:
            QueueFullError: twenty runs are waiting.
            ClusterError: the cluster refuses it, or one of its hosts cannot be reached.
        """
        if run.state().cluster is not None:
            submit_job(run, self._settings)
            self._store.jobs.forget()
            return
        hosts = self._reached(spec)
        if hosts is None or hosts.first.is_here():
            request = device_request(on_first(spec, hosts))
            DeviceQueue(self.runtime_folder, request.queue).join(run.run_id)

    def _reached(self, spec: AnySpec) -> Hosts | None:
        """The given hosts of a run, which can be reached; None if it has none."""
        name, hosts = cluster_of(spec), hosts_of(spec, self._settings.home)
        if name and hosts:
            require_hosts(self._settings.home, name, hosts, self._settings.python or sys.executable)
        return hosts

    def start(self, run: RunFolder) -> None:
        """Start the worker of a run of this machine; a cluster starts its own."""
        state = run.state()
        if state.cluster is not None:
            return
        try:
            spare = self._taken_spare(run)
            process = spare or spawn_worker(run, self._settings, self.runtime_folder)
        except OSError as error:
            self._could_not_start(run, state.attempt, error.strerror or type(error).__name__)
            return
        # Without a wait for its exit status the child would remain as a zombie.
        reap = partial(self._reap, run, state.attempt, process, was_spare=spare is not None)
        threading.Thread(target=reap, daemon=True).start()

    def _taken_spare(self, run: RunFolder) -> subprocess.Popen[bytes] | None:
        with suppress(StateError):  # the worker says it
            return self.spare.take(run, run.request_now())
        return None

    def announce(self, kind: str) -> None:
        """Something of this kind has been done: a training may be next."""
        if kind in ANNOUNCING:
            self.spare.prepare()

    def start_again(self) -> None:
        """Start the queued runs that have no worker, and record the interrupted ones."""
        for run in self._store.unfinished():
            with suppress(StateError, OSError):  # a list of runs has the error
                if _needs_a_worker(self._store.observe(run)):
                    self.start(run)

    def _reap(
        self, run: RunFolder, attempt: int, process: subprocess.Popen[bytes], *, was_spare: bool
    ) -> None:
        with suppress(StateError, OSError):  # the run may have been removed
            attend(process, run, self._store)
        code = process.wait()
        if was_spare and self._started_anew(run, attempt):
            return
        with suppress(StateError, OSError):  # of a worker that was killed there is no other notice
            self._store.observe(run)
            notify(run, self._settings.notify)
        with suppress(RunFolderError, OSError):
            log = shown_path(run.log_path)
            self._could_not_start(run, attempt, f"exit code {code}; details are in {log}")
        with suppress(StateError, OSError):
            self.announce(run.state().kind)

    def _started_anew(self, run: RunFolder, attempt: int) -> bool:
        """Whether a spare ended before it took its run, which then has another worker."""
        with suppress(StateError, OSError):
            state = run.state()
            if state.attempt == attempt and was_never_started(state):
                logger().info("spare_worker_is_gone", run_id=run.run_id)
                self.start(run)
                return True
        return False

    def _could_not_start(self, run: RunFolder, attempt: int, reason: str) -> None:
        """Fail a run whose worker exited before it started this attempt."""
        error = RuntimeFailure(
            f"The run's worker could not start ({reason}).",
            hint="Check the installation; BACKPROPAGATE_PYTHON sets the interpreter.",
            next=then("show_settings"),
        )
        self._store.fail_unstarted(run, attempt, error.record())


def was_never_started(state: RunState) -> bool:
    """Whether a run of this machine waits for a worker that nobody has started."""
    here = state.cluster is None and same_host(state.host)
    return here and state.status is Status.QUEUED and state.pid is None


def _needs_a_worker(state: RunState) -> bool:
    if state.status is not Status.QUEUED or state.cluster is not None or not same_host(state.host):
        return False
    if state.boot_id != boot_id():
        return True
    return state.pid is None and not is_recent(state.queued_at or state.created_at, STARTING_S)
