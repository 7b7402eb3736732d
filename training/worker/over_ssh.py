"""Processes on other hosts, which last as long as the process that started them, and its connection to them.

    this process -> over_ssh.py -> ssh ~~> sshd -> leased.py -> what is wanted

This file is the program on this side: `python -P -m … SSH-COMMAND`. It passes on what comes by its stdin, and
sends an empty line each second. `leased.py` ends what it has started when they do not come any more, so that
nothing is left on a host which lost its network; on this side, ssh ends after ten seconds without an answer.
A process of its own, since the worker's may be in one call for long.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import IO

from ..clusters.hosts import Host
from ..clusters.ssh import ssh_command
from ..runs.folder import RunFolder
from .spawn import HIDDEN
from .with_parent import open_stdin

BEAT_S = 1.0


def start_on(
    host: Host,
    python: str,
    module: str,
    run: RunFolder,
    *arguments: str,
    environment: Mapping[str, str],
    answers: bool = False,
) -> subprocess.Popen[bytes]:
    """Start a module of this package with a run's folder on another host. Its stdin is a pipe.

    Args:
        python: if the host names none.
        module: by its name in this folder.
        environment: what the process gets besides the host's own; sent where no list of processes shows it.
        answers: whether its stdout is a pipe too, and not a part of worker.log.
    """
    there = [host.python or python, "-P", "-m", f"{__package__}.leased", module, str(run.path), *arguments]
    with run.log_path.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", f"{__package__}.over_ssh", *ssh_command(host, there)],
            bufsize=0,  # so that nothing is left to write when it has ended
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE if answers else log,
            stderr=log,
            start_new_session=os.name != "nt",
            creationflags=HIDDEN,
        )
    send_line(process, dict(environment))
    return process


def send_line(process: subprocess.Popen[bytes], record: object) -> None:
    """Send a record as a line; to a process that has ended, nothing."""
    assert process.stdin is not None
    with suppress(OSError):
        process.stdin.write(json.dumps(record).encode() + b"\n")


def main() -> int:
    ssh = subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE)
    assert ssh.stdin is not None
    writing = threading.Lock()
    threading.Thread(target=_pass_on, args=(ssh.stdin, writing), daemon=True).start()
    while True:
        try:
            return ssh.wait(BEAT_S)
        except subprocess.TimeoutExpired:
            with writing, suppress(OSError, ValueError):  # closed: it is about to end
                ssh.stdin.write(b"\n")
                ssh.stdin.flush()


def _pass_on(to: IO[bytes], writing: threading.Lock) -> None:
    for line in open_stdin():
        with writing, suppress(OSError):
            to.write(line)
            to.flush()
    with writing, suppress(OSError):
        to.close()


if __name__ == "__main__":
    sys.exit(main())
