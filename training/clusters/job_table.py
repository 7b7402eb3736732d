"""The jobs of this user as Slurm knows them; it is asked every few seconds at most, for all runs at once."""

from __future__ import annotations

import threading
import time
from datetime import datetime, timedelta

from ..errors import ClusterError
from .slurm import Job, cancel, cluster_name, jobs, past_job

DOWN_S = 30.0  # after a question without an answer, for which all who look at a run have waited
CLOCKS_DIFFER = timedelta(hours=1)
FRESH_S = 8.0  # an end is noticed within 30 s, and Slurm is not asked more often than its sites like


class JobTable:
    """Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._jobs: dict[str, Job] | None = None
        self._asked_at = float("-inf")
        self._being_ended: set[str] = set()

    def knows(self, slurm: str | None) -> bool:
        """Whether the Slurm of this name is reached from here, and answers."""
        try:
            return self._current() is not None and cluster_name() == slurm
        except ClusterError:
            return False

    def find(self, name: str) -> Job | None:
        """The job of this name, unless it ended longer ago than squeue remembers."""
        return (self._current() or {}).get(name)

    def find_past(self, name: str, submitted_at: str) -> Job | None:
        """The job of this name in the accounting, where the site has one.

        Args:
            submitted_at: about the time of its submission, with a zone.
        """
        since = datetime.fromisoformat(submitted_at).astimezone() - CLOCKS_DIFFER
        return past_job(name, since.strftime("%Y-%m-%dT%H:%M:%S"))

    def forget(self) -> None:
        """Ask again at the next look: something was submitted or cancelled."""
        with self._lock:
            self._asked_at = float("-inf")

    def end(self, job_id: str) -> None:
        """End a job that does not stop by itself; once.

        Raises:
            ClusterError: Slurm does not answer.
        """
        with self._lock:
            known = job_id in self._being_ended
            self._being_ended.add(job_id)
        if not known:
            cancel(job_id, only_waiting=False)

    def _current(self) -> dict[str, Job] | None:
        with self._lock:
            fresh_s = DOWN_S if self._jobs is None else FRESH_S
            if time.monotonic() - self._asked_at > fresh_s:
                self._jobs = _jobs_or_none()
                self._asked_at = time.monotonic()
            return self._jobs


def _jobs_or_none() -> dict[str, Job] | None:
    try:
        return jobs()
    except ClusterError:
        return None
