"""The hosts that share a training without a scheduler, as the run's worker on the first of them has them."""

from __future__ import annotations

import json
import os
import queue
import socket
import subprocess
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from ..clusters.description import cluster_named
from ..clusters.hosts import Host, Hosts
from ..clusters.job_script import inherited
from ..clusters.ssh import NOT_CONNECTED, hostname_of
from ..config.specs import AnySpec, Spec, TrainingSpec
from ..errors import ErrorRecord, RunInterruptedError, from_record
from ..events import Phase
from ..next_step import then
from ..runs.cluster_job import cluster_of
from ..runs.folder import RunFolder
from ..untrusted import quoted
from .context import RunContext
from .interfaces import address_towards
from .nodes import FIRST_RANK, is_shareable
from .over_ssh import send_line, start_on

LOOK_S = 0.2


def hosts_of(spec: Spec, home: Path) -> Hosts | None:
    """The given hosts that are to carry a run out.

    Raises:
        InputError, InvalidSettingError: as `cluster_named`.
    """
    name = cluster_of(spec)
    cluster = cluster_named(home, name) if name else None
    return cluster if isinstance(cluster, Hosts) else None


def on_first(spec: AnySpec, hosts: Hosts | None) -> AnySpec:
    """The spec with the processes of the first host; without hosts, as it is."""
    if hosts is None or not isinstance(spec, TrainingSpec):
        return spec
    training = spec.training
    here = hosts.first.processes(training.gpus, training.device)
    return spec.model_copy(update={"training": training.model_copy(update={"gpus": here})})


class GivenHosts:
    """The other hosts of a run. Nothing is started before `take`.

    Args:
        hosts: of the run, its worker's first.

    Attributes:
        processes: of each host.
    """

    def __init__(self, run: RunFolder, hosts: Hosts, spec: TrainingSpec) -> None:
        self._run, self._hosts = run, hosts
        training = spec.training
        shared = hosts.hosts if is_shareable(spec) else hosts.hosts[:1]
        self.processes = [host.processes(training.gpus, training.device) for host in shared]
        self._others, self._left_out = shared[1:], hosts.hosts[len(shared) :]
        self._started: list[subprocess.Popen[bytes]] = []

    def take(self, context: RunContext, queue_name: str) -> None:
        """Wait until each has its devices, in the order of the list.

        Raises:
            RunInterruptedError: a host cannot be reached.
            GpuNotAvailableError: a host has too few GPUs.
            TrainingAbortedError: the user has cancelled the run.
        """
        if self._left_out:
            name, why = quoted(self._hosts.first.name), "several share a single training by our own engines"
            context.recorder.warn(f"Host {name} trains alone: {why}.")
        for host, number in zip(self._others, self.processes[1:], strict=True):
            process = start_on(
                host,
                sys.executable,
                "ranks_of_host",
                self._run,
                str(number),
                queue_name,
                environment={name: os.environ[name] for name in inherited(os.environ, self._hosts)},
                answers=True,
            )
            self._started.append(process)
            context.report(Phase(phase="waiting", message=f"waiting for {quoted(host.name)}"))
            self._wait_until_ready(context, host, process)

    def address(self) -> str:
        """The address of this host that the others see; its name if that cannot be told."""
        try:
            return address_towards(hostname_of(self._others[0]))
        except OSError:
            return socket.gethostname()

    def start(self, environment: dict[str, str]) -> dict[range, subprocess.Popen[bytes]]:
        """Start the ranks of the other hosts; each process ends when those of its host have.

        Args:
            environment: where they find the world.
        """
        first, started = self.processes[0], dict[range, subprocess.Popen[bytes]]()
        for process, number in zip(self._started, self.processes[1:], strict=True):
            send_line(process, environment | {FIRST_RANK: str(first)})
            started[range(first, first + number)] = process
            first += number
        return started

    def name_of(self, rank: int) -> str | None:
        """The host of a rank, if it is another one."""
        ends = [sum(self.processes[: n + 1]) for n in range(len(self.processes))]
        place = next(n for n, end in enumerate(ends) if rank < end)
        return self._others[place - 1].name if place else None

    def end(self) -> None:
        """End what is left of them."""
        for process in self._started:
            process.kill()
            process.wait()
            if process.stdin is not None:
                process.stdin.close()

    def _wait_until_ready(self, context: RunContext, host: Host, process: subprocess.Popen[bytes]) -> None:
        lines: queue.Queue[bytes] = queue.Queue()
        threading.Thread(target=_read, args=(process, lines), daemon=True).start()
        while True:
            context.stop_if_asked()
            try:
                said = _record(lines.get(timeout=LOOK_S))
            except queue.Empty:
                if (code := process.poll()) is not None:
                    raise self._gone(host, code) from None
                continue
            if "error" in said:
                record = ErrorRecord.model_validate(said["error"])
                message = f"Host {quoted(host.name)}: {record.message}"
                raise from_record(record.model_copy(update={"message": message}))
            if "ready" in said:
                return
            if ahead := said.get("ahead"):
                message = f"waiting for {quoted(host.name)}: {ahead} ahead"
                context.report(Phase(phase="waiting", message=message))

    def _gone(self, host: Host, code: int) -> RunInterruptedError:
        return RunInterruptedError(
            f"Host {quoted(host.name)} {ended_there(code)}, so the training did not begin.",
            hint="worker.log in the run folder has what ssh said. Resuming tries again.",
            next=then("resume", run_id=self._run.run_id),
        )


@contextmanager
def given_hosts(run: RunFolder, hosts: Hosts | None, spec: AnySpec) -> Generator[GivenHosts | None]:
    """The hosts of a run; None if none are given. What is left there ends with the `with`."""
    if hosts is None or not isinstance(spec, TrainingSpec):
        yield None
        return
    others = GivenHosts(run, hosts, spec)
    try:
        yield others
    finally:
        others.end()


def ended_there(code: int) -> str:
    """What the exit code of ssh says of a process on another host."""
    if code == NOT_CONNECTED:
        return "cannot be reached"
    if code > 128:
        return f"was left: its process was killed (signal {code - 128})"
    return f"was left: its process exited unexpectedly (code {code})"


def _read(process: subprocess.Popen[bytes], lines: queue.Queue[bytes]) -> None:
    assert process.stdout is not None
    with process.stdout as told:  # stays open until ssh has ended too
        for line in told:
            lines.put(line)


def _record(line: bytes) -> dict[str, Any]:
    """What the host says; a login may say something else before."""
    try:
        said = json.loads(line)
    except ValueError:
        return {}
    return cast("dict[str, Any]", said) if isinstance(said, dict) else {}
