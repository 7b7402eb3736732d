"""Hosts without a scheduler, as a table of clusters.toml lists them.

    [pair]
    hosts = [{ name = "a", gpus = 2 }, { name = "b", gpus = 2 }]

The first is the one whose process is rank 0; each has a device queue of its own.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import Annotated, Literal

import psutil
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator

LoginName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$", max_length=100)]
HostName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.:-]*$", max_length=253)]
"""An argument of ssh, which takes what begins with a dash as an option."""
VariableName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


class Host(BaseModel):
    """One host, as `ssh NAME` reaches it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[HostName, Field(description="Name or address, or a Host of ~/.ssh/config.")]
    user: Annotated[LoginName | None, Field(description="Login there, if it is another one.")] = None
    port: Annotated[int | None, Field(ge=1, le=65535, description="Port of its sshd. Default: 22.")] = None
    python: Annotated[
        str | None,
        Field(min_length=1, description="Python there. Default: the path of the one that asks."),
    ] = None
    gpus: Annotated[int, Field(ge=1, le=64, description="GPUs that gpus=all uses there.")] = 1

    def processes(self, gpus: int | Literal["all"], device: str) -> int:
        """Processes of a training there.

        Args:
            gpus, device: as the training asks for them.
        """
        if gpus != "all":
            return gpus
        return 1 if device == "cpu" else self.gpus

    def is_here(self) -> bool:
        """Whether it is this machine: it has one of its names or addresses, and needs no login or port."""
        if self.user or self.port:
            return False
        own = socket.gethostname()
        if self.name in {own, own.partition(".")[0]}:
            return True
        with suppress(OSError):  # a Host of ~/.ssh/config is no name that can be looked up
            found = {str(address[4][0]) for address in socket.getaddrinfo(self.name, None)}
            return not found.isdisjoint(a.address for each in psutil.net_if_addrs().values() for a in each)
        return False


class Hosts(BaseModel):
    """Hosts that share each step of a training; they are reached by ssh."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    hosts: Annotated[list[Host], Field(min_length=1, max_length=64, description="The first leads.")]
    environment: Annotated[
        list[VariableName], Field(description="More variables that they get, by name.")
    ] = []

    @field_validator("hosts")
    @classmethod
    def _require_different(cls, hosts: list[Host]) -> list[Host]:
        names = [(host.name, host.port) for host in hosts]
        if len(set(names)) < len(names):
            raise ValueError("should name each host once")
        return hosts

    @property
    def first(self) -> Host:
        return self.hosts[0]

    def takes_in_order_of(self, other: Hosts) -> bool:
        """Whether runs of both take shared hosts in one order, so that they cannot wait for each other."""
        mine, theirs = ([(host.name, host.port) for host in each.hosts] for each in (self, other))
        return [name for name in mine if name in theirs] == [name for name in theirs if name in mine]
