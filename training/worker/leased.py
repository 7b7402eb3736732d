"""A process for another host, which ends with its connection: `python -P -m … MODULE RUN_FOLDER ARGUMENTS`.

Started there by sshd for `over_ssh.py`. The first line of its stdin has environment variables; then an empty
line comes each second, and other lines are for the process. Looks are counted and not seconds: a machine that
slept has missed nothing.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from contextlib import suppress
from typing import IO, BinaryIO

from .with_parent import open_stdin

LOOK_S = 1.0
LOOKS = 10
"""Without a line, after which the connection counts as lost."""


def main() -> int:
    told = open_stdin()
    os.environ.update(json.loads(told.readline()))
    module, folder, *arguments = sys.argv[1:]
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", f"{__package__}.{module}", folder, *arguments],
        cwd=folder,
        stdin=subprocess.PIPE,
    )
    heard = threading.Event()
    threading.Thread(target=_listen, args=(told, process, heard), daemon=True).start()
    return exit_code(_attended(process, heard))


def _attended(process: subprocess.Popen[bytes], heard: threading.Event) -> int:
    missed = 0
    while missed < LOOKS:
        with suppress(subprocess.TimeoutExpired):
            return process.wait(LOOK_S)
        missed = 0 if heard.is_set() else missed + 1
        heard.clear()
    process.kill()
    return process.wait()


def _listen(told: BinaryIO, process: subprocess.Popen[bytes], heard: threading.Event) -> None:
    assert process.stdin is not None
    for line in told:
        heard.set()
        if line.strip():
            _write(process.stdin, line)
    process.kill()


def _write(to: IO[bytes], line: bytes) -> None:
    with suppress(OSError):  # it is about to end
        to.write(line)
        to.flush()


def exit_code(code: int) -> int:
    """As shells tell the signal that killed a process."""
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main())
