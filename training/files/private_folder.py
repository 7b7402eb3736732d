"""Folders that only their owner can enter: the home of runs, and the locks of the device queue."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from ..errors import ForeignOwnerError

OWN_FOLDER = "Set BACKPROPAGATE_HOME (or BACKPROPAGATE_RUNTIME_DIR) to a folder of your own."
OTHERS = stat.S_IRWXG | stat.S_IRWXO


def make_private(folder: Path) -> None:
    """Make `folder`, or take other users' rights from it.

    Raises:
        ForeignOwnerError: it belongs to another user, or is for all users, as /tmp is.
        OSError: it cannot be made.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    take_rights(folder)


def take_rights(folder: Path) -> None:
    """Take other users' rights from an existing folder; raises as `make_private`."""
    require_own(folder)
    mode = stat.S_IMODE(folder.stat().st_mode)
    if os.name == "nt" or not mode & OTHERS:
        return
    if mode & stat.S_ISVTX:
        raise ForeignOwnerError(f"{folder} is a folder for all users.", hint=OWN_FOLDER)
    folder.chmod(mode & ~OTHERS)


def require_own(path: Path) -> None:
    """Refuse what another user made: that user could change it at any time.

    Raises:
        ForeignOwnerError: `path`, or the link at this path, belongs to another user.
    """
    if os.name == "nt":  # rights are inherited from the user's profile there
        return
    for found in (path.lstat(), path.stat()):
        if found.st_uid != os.geteuid():
            raise ForeignOwnerError(
                f"{path} belongs to another user of this machine (uid {found.st_uid}).",
                hint=OWN_FOLDER,
            )
