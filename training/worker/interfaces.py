"""The network interface by which the processes of a training reach each other."""

from __future__ import annotations

import os
import socket

import psutil

INTERFACES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")


def address_towards(host: str) -> str:
    """The address of this machine that a host sees; nothing is sent.

    Args:
        host: a name or an address.

    Raises:
        OSError: it is unknown, or there is no way to it.
    """
    family, _, _, _, address = socket.getaddrinfo(host, 9, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect(address)
        return str(probe.getsockname()[0])


def interface_with(address: str) -> dict[str, str]:
    """Environment variables that keep processes on the interface of an address, unless they are set.

    Without them, gloo takes the address of the machine's name, which Debian's /etc/hosts says is 127.0.1.1.

    Args:
        address: of this machine; of any other, there is nothing to set.
    """
    if os.name == "nt":
        return {}
    found = psutil.net_if_addrs().items()
    name = next((n for n, addresses in found if any(a.address == address for a in addresses)), None)
    return {} if name is None else {variable: name for variable in INTERFACES if variable not in os.environ}
