"""Whether the hosts of a list could share a training: `python -P -m … HOME [NAME]` tells it of a host.

The first host asks the others, since it is the one that starts processes there.
"""

from __future__ import annotations

import hashlib
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from pydantic import BaseModel

from ..config.environment import ENV_PREFIX
from ..errors import BackpropagateError, ClusterError, ErrorRecord, from_record
from ..hardware.devices import CPU, training_devices
from ..untrusted import quoted, shown_path
from ..version import __version__
from .description import FILE, cluster_named
from .hosts import Host, Hosts
from .ssh import ANSWER_S, answer


class HostFacts(BaseModel):
    """What a host says of itself.

    Args:
        described: digest of the clusters.toml that it sees; empty if it sees none.
        trains: whether it has torch.
        error: why it says nothing.
    """

    name: str
    version: str = ""
    described: str = ""
    gpus: int = 0
    trains: bool = False
    error: ErrorRecord | None = None


def facts_of(home: Path, name: str, hosts: Hosts, python: str) -> list[HostFacts]:
    """What each host of the list says.

    Args:
        name: of the list, in clusters.toml.
        python: on hosts for which the list names none.

    Raises:
        ClusterError: the first host cannot be asked.
    """
    if hosts.first.is_here():
        return _seen_from_here(home, hosts, python)
    return _told_by(hosts.first, [str(home), name], python, within_s=2 * ANSWER_S)


def require_hosts(home: Path, name: str, hosts: Hosts, python: str) -> None:
    """Check that a training could begin; arguments as of `facts_of`.

    Raises:
        ClusterError: a host cannot be reached, has another version, or does not share the home folder.
    """
    for facts in facts_of(home, name, hosts, python):
        require_usable(facts, home)


def require_usable(facts: HostFacts, home: Path) -> None:
    """Raises as `require_hosts`, for one host."""
    if facts.error is not None:
        raise from_record(facts.error)
    if facts.version != __version__:
        raise ClusterError(
            f"Host {quoted(facts.name)} has version {quoted(facts.version)} of this package, "
            f"and this machine {__version__}.",
            hint="Install the same version on all hosts, or let them share one Python.",
        )
    if not facts.trains:
        raise ClusterError(
            f"Host {quoted(facts.name)} has no torch.", hint='pip install "backpropagate-mcp[train]" there.'
        )
    if facts.described != _described(home):
        raise ClusterError(
            f"Host {quoted(facts.name)} does not see the home folder {shown_path(home)} of this machine.",
            hint=f"{ENV_PREFIX}HOME has to be a folder that all hosts share, at the same path.",
        )


def _seen_from_here(home: Path, hosts: Hosts, python: str) -> list[HostFacts]:
    ask = partial(_asked, home, python)
    with ThreadPoolExecutor(len(hosts.hosts)) as pool:
        others = list(pool.map(ask, hosts.hosts[1:]))
    return [_own(home, hosts.first.name), *others]


def _asked(home: Path, python: str, host: Host) -> HostFacts:
    try:
        return _told_by(host, [str(home)], python)[0]
    except BackpropagateError as error:
        return HostFacts(name=host.name, error=error.record())


def _told_by(host: Host, arguments: list[str], python: str, *, within_s: float = ANSWER_S) -> list[HostFacts]:
    command = [host.python or python, "-P", "-m", f"{__package__}.host_check", *arguments]
    told = answer(host, command, within_s=within_s)
    try:
        records = json.loads(told.splitlines()[-1])  # a login may have said something before
        return [HostFacts.model_validate({**facts, "name": facts["name"] or host.name}) for facts in records]
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise ClusterError(
            f"Host {quoted(host.name)} gives no answer that can be read.",
            hint="Let its login say nothing where there is no terminal.",
            cause=error,
        ) from error


def _own(home: Path, name: str) -> HostFacts:
    devices = training_devices("auto")
    gpus = 0 if devices == [CPU] else len(devices)
    trains = find_spec("torch") is not None
    return HostFacts(name=name, version=__version__, described=_described(home), gpus=gpus, trains=trains)


def _described(home: Path) -> str:
    file = home / FILE
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else ""


def _told(arguments: list[str]) -> list[HostFacts]:
    home = Path(arguments[0])
    if len(arguments) == 1:
        return [_own(home, "")]
    try:
        hosts = cluster_named(home, arguments[1])
    except BackpropagateError:  # of a home that is another one: the asker says so
        return [_own(home, "")]
    return _seen_from_here(home, hosts, sys.executable) if isinstance(hosts, Hosts) else []


if __name__ == "__main__":
    print(json.dumps([facts.model_dump() for facts in _told(sys.argv[1:])]))
