"""A real Slurm on this machine: one controller and two nodes, in a folder, without root's services."""

from __future__ import annotations

import getpass
import shutil
import socket
import subprocess
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

PROGRAMS = ("slurmctld", "slurmd", "sbatch", "squeue", "sinfo")
AUTH_PLUGINS = Path("/usr/lib")
NODES = ("n1", "n2")
CONFIGURATION = """\
ClusterName=tested
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
AuthType=auth/none
CredType=cred/none
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1,bf_interval=1
MpiDefault=none
ReturnToService=2
KillWait=2
SlurmdTimeout=10
MinJobAge=60
PartitionName=main Nodes={nodes} Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str | None:
    """Why there can be no Slurm here."""
    absent = [name for name in PROGRAMS if shutil.which(name) is None]
    if absent:
        return f"{absent[0]} is not installed"
    if not any(AUTH_PLUGINS.glob("*/slurm*/auth_none.so")):
        return "Slurm's plugin auth/none is not installed"
    return None


@contextmanager
def real_slurm(folder: Path) -> Generator[Path]:
    """Yields its slurm.conf, for SLURM_CONF."""
    (folder / "state").mkdir(parents=True)
    configuration = folder / "slurm.conf"
    configuration.write_text(_configuration(folder), encoding="utf-8")
    commands = [["slurmctld", "-D", "-f", str(configuration)]]
    commands += [["slurmd", "-D", "-N", node, "-f", str(configuration)] for node in NODES]
    daemons = [subprocess.Popen(command, stderr=subprocess.DEVNULL) for command in commands]
    try:
        _wait_for_nodes(configuration)
        yield configuration
    finally:
        _end_jobs(configuration)
        for daemon in reversed(daemons):
            daemon.terminate()
            daemon.wait(30)


def _end_jobs(configuration: Path) -> None:
    """Nodes leave the processes of their jobs behind."""
    environment = _environment(configuration)
    subprocess.run(["scancel", f"--user={getpass.getuser()}"], env=environment, check=False)
    end = time.monotonic() + 30
    while time.monotonic() < end:
        told = subprocess.run(["squeue", "--noheader"], capture_output=True, env=environment, check=False)
        if not told.stdout.strip():
            return
        time.sleep(0.2)


def _environment(configuration: Path) -> dict[str, str]:
    return {"SLURM_CONF": str(configuration), "PATH": "/usr/bin:/bin:/usr/local/bin"}


def _configuration(folder: Path) -> str:
    host = socket.gethostname().partition(".")[0]
    node = "NodeName={} NodeHostname={} NodeAddr=127.0.0.1 Port={} CPUs=1 State=UNKNOWN"
    nodes = [node.format(name, host, _free_port()) for name in NODES]
    text = CONFIGURATION.format(
        host=host, port=_free_port(), user=getpass.getuser(), folder=folder, nodes=",".join(NODES)
    )
    first, partition = text.rstrip().rsplit("\n", 1)
    return "\n".join([first, *nodes, partition, ""])


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def _wait_for_nodes(configuration: Path) -> None:
    environment = _environment(configuration)
    end = time.monotonic() + 60
    while time.monotonic() < end:
        command = ["sinfo", "--noheader", "--format=%t %D"]
        told = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        if told.stdout.strip() == f"idle {len(NODES)}":
            return
        time.sleep(0.2)
    raise AssertionError(f"the nodes did not come: {told.stdout} {told.stderr}")
