"""A real sshd on the loopback interface, with keys in a folder, for the user who runs the tests."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

SSHD = "/usr/sbin/sshd"
CONFIGURATION = """\
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/user_key.pub
PidFile {folder}/{name}.pid
PasswordAuthentication no
StrictModes no
UsePAM no
SetEnv {environment}
"""
CLIENT = """\
Host *
  IdentityFile {folder}/user_key
  IdentitiesOnly yes
  UserKnownHostsFile {folder}/known_hosts
"""
HOST = """\
Host {name}
  HostName 127.0.0.1
  HostKeyAlias {name}
  Port {port}
  User {user}
"""


def missing() -> str | None:
    """Why there can be no sshd here."""
    if sys.platform == "win32" or not Path(SSHD).is_file():
        return "no sshd is installed"
    absent = [name for name in ("ssh", "ssh-keygen") if shutil.which(name) is None]
    return f"{absent[0]} is not installed" if absent else None


@contextmanager
def real_sshd(folder: Path, names: Sequence[str]) -> Generator[dict[str, subprocess.Popen[bytes]]]:
    """An sshd for each name, and in `folder/bin` an ssh that knows them; yields the daemons.

    Each is a host with a device queue of its own, in `folder/runtime-NAME`.
    """
    (folder / "bin").mkdir(parents=True)
    for key in ("host_key", "user_key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)], check=True)
    ports = {name: _free_port() for name in names}
    _write_client(folder, ports)
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # sshd separates its privileges there
    daemons = {name: _daemon(folder, name, port) for name, port in ports.items()}
    try:
        for port in ports.values():
            _wait_for(port)
        yield daemons
    finally:
        for daemon in daemons.values():
            daemon.terminate()
            daemon.wait(30)


def _write_client(folder: Path, ports: dict[str, int]) -> None:
    """As a user's configuration and known hosts, for an ssh on the path: ssh looks for no other home."""
    hosts = [HOST.format(name=name, port=port, user=getpass.getuser()) for name, port in ports.items()]
    (folder / "config").write_text("".join([*hosts, CLIENT.format(folder=folder)]), encoding="utf-8")
    key = (folder / "host_key.pub").read_text("utf-8")
    (folder / "known_hosts").write_text("".join(f"{name} {key}" for name in ports), encoding="utf-8")
    program = folder / "bin" / "ssh"
    program.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {folder}/config "$@"\n', encoding="utf-8")
    program.chmod(0o755)


def _daemon(folder: Path, name: str, port: int) -> subprocess.Popen[bytes]:
    kept = {key: os.environ[key] for key in ("PYTHONPATH", "OMP_NUM_THREADS") if key in os.environ}
    kept |= {
        "PATH": f"{folder}/bin:{os.environ['PATH']}",
        "BACKPROPAGATE_RUNTIME_DIR": f"{folder}/runtime-{name}",
    }
    text = CONFIGURATION.format(
        folder=folder,
        name=name,
        port=port,
        environment=" ".join(f"{key}={value}" for key, value in kept.items()),
    )
    configuration = folder / f"sshd-{name}"
    configuration.write_text(text, encoding="utf-8")
    with (folder / f"sshd-{name}.log").open("wb") as log:
        return subprocess.Popen([SSHD, "-D", "-e", "-f", str(configuration)], stderr=log)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def _wait_for(port: int) -> None:
    end = time.monotonic() + 30
    while time.monotonic() < end:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError(f"no sshd listens at port {port}")
