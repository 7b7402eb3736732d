"""The system's ssh, called with lists of arguments."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Sequence

from ..errors import ClusterError
from ..redact import scrub
from ..untrusted import quoted
from .hosts import Host

ANSWER_S = 25.0
OPTIONS = {
    "BatchMode": "yes",  # no question, as nobody would answer it
    "ConnectTimeout": "10",
    "ServerAliveInterval": "3",
    "ServerAliveCountMax": "3",
    "ClearAllForwardings": "yes",
    "ForwardAgent": "no",
    "ForwardX11": "no",
    "ControlPath": "none",  # a connection of its own, which ends with it
}
"""Whatever else the user's configuration says, keys and the checks of host keys among it, stays as it is."""
NOT_CONNECTED = 255
"""The exit code of ssh itself; others are of what it has started."""
REASONS = {
    "Permission denied": "Let this machine's key log in there (ssh-copy-id); passwords are not asked for.",
    "Host key verification failed": "Log in by hand once with ssh, and compare the key of the host.",
    "Could not resolve hostname": "Correct its `name` in clusters.toml, or describe it in ~/.ssh/config.",
    "Connection refused": "Start its sshd, or correct its `port` in clusters.toml.",
    "Connection timed out": "Start the host, or correct its `name` in clusters.toml.",
    "No route to host": "Start the host, or correct its `name` in clusters.toml.",
}
"""What ssh says, and what helps."""


def ssh_command(host: Host, command: Sequence[str]) -> list[str]:
    """The arguments that run a command on a host.

    ssh makes one line of the command, which a shell reads there: so it is quoted as POSIX shells need it.
    """
    options = [word for name, value in OPTIONS.items() for word in ("-o", f"{name}={value}")]
    login = ["-l", host.user] if host.user else []
    port = ["-p", str(host.port)] if host.port else []
    return ["ssh", "-T", *options, *login, *port, "--", host.name, shlex.join(command)]


def answer(host: Host, command: Sequence[str], *, within_s: float = ANSWER_S) -> str:
    """What a command says on a host.

    Raises:
        ClusterError: the host cannot be reached, or the command fails there.
    """
    done = _run(ssh_command(host, command), host, within_s)
    said = done.stderr.decode(errors="replace")
    if done.returncode == NOT_CONNECTED:
        reason = next((reason for reason in REASONS if reason in said), None)
        raise ClusterError(
            f"Host {quoted(host.name)} cannot be reached by ssh{f': {reason}' if reason else ''}.",
            hint=REASONS.get(reason or "", f"Try: ssh {host.name}"),
            untrusted=scrub(said),
            retryable=True,
        )
    if done.returncode:
        raise ClusterError(
            f"Host {quoted(host.name)} does not run {quoted(command[0])} (exit code {done.returncode}).",
            hint="`python` of the host in clusters.toml names a Python that has this package.",
            untrusted=scrub(said),
        )
    return done.stdout.decode(errors="replace")


def hostname_of(host: Host) -> str:
    """The name or address behind a Host of the user's ssh configuration; its own name if there is none.

    Raises:
        ClusterError: there is no ssh here.
    """
    done = _run(["ssh", "-G", "--", host.name], host, ANSWER_S)
    found = re.search(r"^hostname (\S+)$", done.stdout.decode(errors="replace"), re.MULTILINE)
    return found[1] if found else host.name


def _run(command: list[str], host: Host, within_s: float) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=within_s, check=False
        )
    except FileNotFoundError as error:
        raise ClusterError(
            f"ssh is not installed here, so host {quoted(host.name)} cannot be reached.",
            hint="Install OpenSSH's client.",
            cause=error,
        ) from error
    except subprocess.TimeoutExpired as error:
        raise ClusterError(
            f"Host {quoted(host.name)} does not answer within {within_s:.0f} s.", cause=error, retryable=True
        ) from error
