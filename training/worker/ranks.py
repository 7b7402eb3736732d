"""The processes that share a training with the run's worker, and what is done when one of them is gone.

The worker is rank 0: it stays the owner of the run, with its lock, its events and its checkpoints. The others
are plain child processes with the environment variables of torch.distributed.run (RANK, WORLD_SIZE,
MASTER_ADDR, MASTER_PORT). That launcher itself would start rank 0 too, which then could not be the run's
owner, and it would be one more process that can die alone.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from ..errors import BackpropagateError, ErrorRecord, RunInterruptedError, from_record
from ..hardware.devices import CPU
from ..next_step import then
from ..planning.machine import number_of_shards
from ..untrusted import quoted
from .context import RunContext
from .given_hosts import ended_there
from .interfaces import interface_with
from .nodes import start_on_other_nodes
from .spawn import HIDDEN
from .with_parent import WITH_PARENT

if TYPE_CHECKING:
    from ..engine.parallel.group import Group
    from ..engine.parallel.heartbeat import Heartbeat
    from ..engine.parallel.ranks import Ranks

LOOPBACK = "127.0.0.1"
SHARDS = "BACKPROPAGATE_SHARDS"
LOOK_S = 0.2
COMING_S = 600.0  # for a process to import its libraries
LEAVING_S = 20.0  # for a rank to end by itself after the last order
KNOWN_AFTER_S = 30.0  # a rank that does not answer is known to be gone
STUCK_S = 8.0  # for rank 0 to end after another one has


@dataclass(frozen=True)
class World:
    """The processes of a training.

    Args:
        size: of all hosts, rank 0 included.
        here: of this host; the worker starts the others of them, and expects those of other hosts to come.
        shards: over how many of each host weights are sharded where whole ones do not fit.
        host, port: where rank 0 listens; port 0 is any that is free.
    """

    size: int
    here: int
    shards: int
    host: str = LOOPBACK
    port: int = 0


@contextmanager
def ranks_of(context: RunContext, processes: Sequence[int]) -> Generator[OtherRanks | None]:
    """The other ranks of a run, started; None if it has none. They end with the `with`.

    Args:
        processes: of each host, this one's first.
    """
    size = sum(processes)
    if size == 1:
        yield None
        return
    context.recorder.phase("starting", f"starting {size - 1} more of {size} processes")
    world = World(size, processes[0], number_of_shards(processes), _address(context, processes))
    others = OtherRanks(context, world)
    try:
        yield others
        others.wait()
    finally:
        others.end()


def _address(context: RunContext, processes: Sequence[int]) -> str:
    """Where rank 0 listens: for those of this machine only, or where the other hosts see it."""
    if len(processes) == 1:
        return LOOPBACK
    return socket.gethostname() if context.hosts is None else context.hosts.address()


class OtherRanks:
    """The other processes of a run, watched by a thread until they end.

    A rank is gone when its process has ended, or does not answer (`heartbeat.py`). Then the rest are ended,
    and rank 0 raises what the rank said of its end, or that the run is interrupted.

    They import their libraries while this process prepares the data.
    """

    def __init__(self, context: RunContext, world: World) -> None:
        self._context, self._world = context, world
        self._store = _store(world)
        self.port: int = self._store.port
        self._lost: BaseException | None = None
        self._changed = threading.Condition()
        self._group: Group | None = None
        self._heartbeat: Heartbeat | None = None
        self._dismissed = threading.Event()
        self._left = threading.Event()
        self._processes = {range(rank, rank + 1): self._started(rank) for rank in range(1, world.here)}
        if context.hosts is not None:
            self._processes |= context.hosts.start(self._environment())
        elif world.size > world.here:
            elsewhere = start_on_other_nodes(context.run, world.here, self._environment())
            self._processes[range(world.here, world.size)] = elsewhere
        self._watcher = threading.Thread(target=self._watch, daemon=True, name="ranks")
        self._watcher.start()

    def join(self) -> Ranks:
        """Wait until all processes are there.

        Raises:
            RunInterruptedError: one ended before that, or does not come.
            TrainingAbortedError: the user has cancelled the run.
        """
        from ..engine.parallel.group import Group
        from ..engine.parallel.heartbeat import Heartbeat

        self._wait_for_all()
        others = range(1, self._world.size)
        os.environ.update(interface_with(self._world.host))
        self._heartbeat = Heartbeat(self._world.host, self.port, 0, others, self._is_silent)
        self._group = Group(
            self._store,
            0,
            self._world.size,
            here=self._world.shards,
            on_gpu=self._context.recorder.devices != (CPU,),
            heartbeat=self._heartbeat,
            lost=self._why,
            require_all=self._raise_if_lost,
        )
        return self._group

    def _wait_for_all(self) -> None:
        from ..engine.parallel.heartbeat import beat_of

        end = time.monotonic() + COMING_S
        for rank in range(1, self._world.size):
            while not self._store.check([beat_of(rank)]):
                self._context.stop_if_asked()
                self._raise_if_lost()
                if time.monotonic() > end:
                    raise self._interrupted(rank, "did not start in time")
                time.sleep(LOOK_S)

    def release(self) -> None:
        """Let the others end and give their devices back, unless they have shards of the weights."""
        if self._group is not None and self._group.ended:
            self.wait()
            self._context.keep_first_device()

    def wait(self) -> None:
        """Let the others end, if they have not yet."""
        if self._dismissed.is_set():
            return
        if self._group is not None:
            self._group.say_end()
        self._dismissed.set()
        self._leave_group()  # before the wait: NCCL lets nobody leave alone
        for process in self._processes.values():
            with suppress(subprocess.TimeoutExpired):
                process.wait(LEAVING_S)

    def end(self) -> None:
        """End what is left of them."""
        self._dismissed.set()
        self._left.set()
        if self._heartbeat is not None:
            self._heartbeat.end()
        self._kill()
        self._watcher.join()
        self._leave_group()

    def _leave_group(self) -> None:
        group, self._group = self._group, None
        if group is not None:
            with suppress(RuntimeError):  # of a group that was cut off
                group.leave()

    # --- What is known of the others.

    def _why(self) -> BaseException | None:
        """Why a message did not come: waits until it is known who is gone."""
        with self._changed:
            self._changed.wait_for(lambda: self._lost is not None, KNOWN_AFTER_S)
            return self._lost

    def _raise_if_lost(self) -> None:
        if self._lost is not None:
            raise self._lost

    def _is_silent(self, rank: int) -> None:
        self._has_lost(rank, self._interrupted(rank, "does not answer any more"))

    def _watch(self) -> None:
        while not self._dismissed.wait(LOOK_S):
            for ranks, process in self._processes.items():
                if (code := process.poll()) is not None:
                    self._has_lost(ranks[0], self._own_error(ranks) or self._ended(ranks[0], code))
                    return

    def _has_lost(self, rank: int, error: BaseException) -> None:
        """Remember it, and end all: closed connections end the waits of this process."""
        with self._changed:
            if self._lost is not None or self._dismissed.is_set():
                return
            self._lost = error
            self._changed.notify_all()
        self._context.recorder.log.error("rank_lost", rank=rank, message=str(error))
        self._kill()
        if self._group is not None:
            with suppress(RuntimeError):  # a backend that cannot
                self._group.abort()
        if not self._left.wait(STUCK_S) and self._context.own_process:
            os._exit(1)  # in a call that nothing ends; whoever looks at the run finds it interrupted

    def _own_error(self, ranks: range) -> BackpropagateError | None:
        """What one of the ranks has said of its end."""
        with suppress(RuntimeError, ValidationError):
            for rank in ranks:
                if self._store.check([error_key(rank)]):
                    record = ErrorRecord.model_validate_json(self._store.get(error_key(rank)))
                    return from_record(record)
        return None

    def _ended(self, rank: int, code: int) -> RunInterruptedError:
        hosts = self._context.hosts
        if hosts is not None and (name := hosts.name_of(rank)):
            return self._ended_training(f"Host {quoted(name)} {ended_there(code)}")
        return self._interrupted(rank, _ended(code))

    def _interrupted(self, rank: int, what: str) -> RunInterruptedError:
        hosts, devices = self._context.hosts, self._context.recorder.devices
        where = devices[rank] if rank < len(devices) else hosts and hosts.name_of(rank)
        return self._ended_training(
            f"Process {rank + 1} of {self._world.size}{f' ({where})' if where else ''} {what}"
        )

    def _ended_training(self, why: str) -> RunInterruptedError:
        return RunInterruptedError(
            f"{why}, so the training was ended.",
            hint="worker.log in the run folder may say more. "
            "Resuming continues from the last checkpoint, if there is one.",
            next=then("resume", run_id=self._context.run.run_id),
        )

    # --- The processes.

    def _environment(self) -> dict[str, str]:
        """Where a process finds the world, but for its own place in it."""
        return {
            "WORLD_SIZE": str(self._world.size),
            SHARDS: str(self._world.shards),
            "MASTER_ADDR": self._world.host,
            "MASTER_PORT": str(self.port),
        }

    def _started(self, rank: int) -> subprocess.Popen[bytes]:
        devices = self._context.recorder.devices
        environment = os.environ | {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            **self._environment(),
            "CUDA_VISIBLE_DEVICES": "" if devices == (CPU,) else devices[rank],
            **interface_with(self._world.host),
            "PYTHONUNBUFFERED": "1",
            "PYTHONUTF8": "1",
        }
        with self._context.run.log_path.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-P", "-m", f"{__package__}.rank", str(self._context.run.path), WITH_PARENT],
                cwd=self._context.run.path,
                env=environment,
                stdin=subprocess.PIPE,  # closes when this process ends, however it does
                stdout=log,
                stderr=log,
                start_new_session=os.name != "nt",  # a Ctrl-C in the terminal is for this process
                creationflags=HIDDEN,
            )

    def _kill(self) -> None:
        for process in self._processes.values():
            process.kill()
        for process in self._processes.values():
            process.wait()
            if process.stdin is not None:
                process.stdin.close()


def error_key(rank: int) -> str:
    """Where a rank says why it ends."""
    return f"error/{rank}"


def _store(world: World) -> Any:
    """Where the processes find each other.

    It asks nobody who he is, so it listens at the address of the world alone. On Windows torch listens
    at all addresses of the machine.
    """
    from torch.distributed import TCPStore  # pyright: ignore[reportPrivateImportUsage]

    if os.name == "nt":
        return TCPStore(world.host, world.port, is_master=True, wait_for_workers=False)
    listening = socket.socket(socket.AF_INET6 if ":" in world.host else socket.AF_INET)
    listening.bind((world.host, world.port))
    listening.listen(2 * world.size)
    port: int = listening.getsockname()[1]
    return TCPStore(
        world.host, port, is_master=True, wait_for_workers=False, master_listen_fd=listening.detach()
    )


def _ended(code: int) -> str:
    if code < 0:
        return f"was killed (signal {-code})"
    return f"exited unexpectedly (code {code})"
