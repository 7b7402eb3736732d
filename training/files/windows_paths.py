r"""Paths of Windows that mean something else than a file in a folder of this machine.

To look at `\\HOST\share` signs the user in at HOST, so it is judged by its text alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PureWindowsPath

DEVICES = frozenset(
    {"CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"}
    | {f"{port}{digit}" for port in ("COM", "LPT") for digit in "123456789¹²³"}
)
NAMESPACES = ("\\\\?\\", "\\\\.\\")


def reason_against(path: PureWindowsPath, known: Iterable[PureWindowsPath] | None) -> str | None:
    r"""Why a path is not to be looked at; None if it may be.

    A device is opened under its name in any folder. A colon names a stream behind a file, or a folder by
    another name. `\\?\` and `\\.\` switch off the rules by which paths are compared.

    Args:
        known: folders on whose machines the user is signed in already; None: a person asks, who may use any.
    """
    if path.drive.startswith(NAMESPACES):
        return f"begins with {path.drive[:4]}"
    for name in path.parts[1:] if path.anchor else path.parts:
        if is_device(name):
            return f"has a device's name in it ({name})"
        if ":" in name:
            return "has a colon in a name"
    if known is not None and path.drive.startswith("\\\\"):
        shares = {folder.drive.casefold() for folder in known}
        return None if path.drive.casefold() in shares else "is on another machine"
    return None


def is_device(name: str) -> bool:
    """Whether Windows takes a file's name for a device, whatever its ending."""
    return name.partition(".")[0].partition(":")[0].rstrip(" ").upper() in DEVICES
