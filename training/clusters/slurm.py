"""Slurm's commands, called without a shell. Their options and formats are the same in all its versions."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from functools import cache
from typing import NamedTuple

from ..errors import ClusterError
from ..redact import scrub

ANSWER_S = 15.0
REFUSAL = re.compile(r"(?:submission failed|allocation failure|sbatch: error): ([A-Z][\w ,()/-]{1,120})\s*\Z")
ENDED = {
    *("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "DEADLINE", "OUT_OF_MEMORY"),
    *("NODE_FAIL", "BOOT_FAIL", "PREEMPTED", "REVOKED"),
}
"""States of jobs without processes; in all others there are some, or there will be."""


class Job(NamedTuple):
    """A job.

    Args:
        state: as Slurm calls it, e.g. PENDING or TIMEOUT.
        reason: why it waits, as Slurm calls it; empty if it does not.
    """

    id: str
    state: str
    reason: str = ""

    @property
    def ended(self) -> bool:
        return self.state in ENDED


def submit(options: Sequence[str], script: str, environment: Mapping[str, str]) -> str:
    """The id of a new job.

    Args:
        options: of sbatch.
        environment: of sbatch, from which the job takes the variables that the options name.

    Raises:
        ClusterError: there is no sbatch, or it refuses the job.
    """
    told = _answer(["sbatch", "--parsable", *options], script, environment)
    return told.strip().partition(";")[0]


def test(options: Sequence[str], script: str) -> str:
    """What Slurm says of a job like this, without submitting it; raises as `submit`."""
    return _answer(["sbatch", "--test-only", *options], script, errors_too=True).strip()


def cancel(job_id: str, *, only_waiting: bool) -> None:
    """End a job.

    Args:
        only_waiting: not if it has begun since it was looked at.

    Raises:
        ClusterError: Slurm does not answer.
    """
    _answer(["scancel", *(["--state=PENDING"] if only_waiting else []), job_id])


def jobs() -> dict[str, Job]:
    """This user's jobs by name, those that have ended in the last minutes too; of one name, the newest.

    Raises:
        ClusterError: Slurm does not answer.
    """
    told = _answer(["squeue", "--me", "--noheader", "--states=all", "--format=%i|%T|%r|%j"])
    lines = re.findall(r"^(\d+)\S*?\|(\w+)\|(.*?)\|(.+)$", told, re.MULTILINE)
    return {
        name.strip(): Job(job_id, state, _reason(reason))
        for job_id, state, reason, name in sorted(lines, key=lambda line: int(line[0]))
    }


def past_job(name: str, since: str) -> Job | None:
    """A job of the accounting, where the site has one; None if it does not know it.

    Args:
        since: local time, as `2026-11-22T09:07:12`.
    """
    columns = "--format=JobIDRaw,State"
    options = ["--allocations", "--noheader", "--parsable2", f"--name={name}", f"--starttime={since}"]
    try:
        lines = _answer(["sacct", *options, columns]).splitlines()
    except ClusterError:
        return None
    if not lines:
        return None
    job_id, _, state = lines[-1].strip().partition("|")
    return Job(job_id, (state.split() or [""])[0])  # "CANCELLED by 1000"


@cache
def cluster_name() -> str:
    """What the Slurm that is reached from here calls itself.

    A home may be shared by login nodes of several: each knows only its own jobs.

    Raises:
        ClusterError: there is none, or it does not answer.
    """
    found = re.search(r"^ClusterName\s*=\s*(\S+)", _answer(["scontrol", "show", "config"]), re.MULTILINE)
    if found is None:
        raise ClusterError("scontrol does not tell the name of the cluster.")
    return found[1]


def _reason_of_refusal(said: str) -> str:
    """What Slurm's last line says, if it is one of its own sentences; a site's plugins may say anything."""
    found = REFUSAL.search(said)
    return f": {found[1]}" if found else ""


def _reason(told: str) -> str:
    """One word of letters: some reasons list nodes."""
    found = re.match(r"[A-Za-z]\w*", told)
    return found[0][:60] if found and found[0] != "None" else ""


def _answer(
    command: Sequence[str],
    text: str = "",
    environment: Mapping[str, str] = os.environ,
    *,
    errors_too: bool = False,
) -> str:
    program = command[0]
    try:
        done = subprocess.run(
            command,
            input=text.encode(),
            capture_output=True,
            timeout=ANSWER_S,
            env=dict(environment),
            check=False,
        )
    except FileNotFoundError as error:
        raise ClusterError(
            f"{program} is not installed here, so no job can be asked for.",
            hint="Work on a login node of the cluster, where Slurm's commands are.",
            cause=error,
        ) from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ClusterError(
            f"{program} does not answer ({type(error).__name__}).", cause=error, retryable=True
        ) from error
    said = done.stderr.decode(errors="replace")
    if done.returncode:
        message = f"{program} refuses{_reason_of_refusal(said)}."
        hint = "Correct the cluster's table in clusters.toml, or wait until Slurm answers."
        raise ClusterError(message, hint=hint, untrusted=scrub(said))
    return done.stdout.decode(errors="replace") + (said if errors_too else "")
