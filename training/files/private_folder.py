"""Folders that only their owner can enter: the home of runs, and the locks of the device queue."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

from ..errors import ForeignOwnerError, NotWritableError
from ..untrusted import shown_path
from .system_error import system_error

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
        raise ForeignOwnerError(f"{shown_path(folder)} is a folder for all users.", hint=OWN_FOLDER)
    folder.chmod(mode & ~OTHERS)


def take_home(home: Path) -> None:
    """`take_rights` of an existing home, where nothing may be another user's either.

    A home that is read-only can be listed; what writes says that it cannot.
    """
    with suppress(NotWritableError):
        try:
            take_rights(home)
            for entry in home.iterdir():
                require_own(entry, follow=False)
        except OSError as error:
            raise system_error(error, home) from error


def require_own(path: Path, *, follow: bool = True) -> None:
    """Refuse what another user made: that user could change it at any time.

    Args:
        follow: also look at what a link leads to.

    Raises:
        ForeignOwnerError: `path` belongs to another user.
    """
    if os.name == "nt":  # rights are inherited from the user's profile there
        return
    for found in (path.lstat(), *([path.stat()] if follow else [])):
        if found.st_uid != os.geteuid():
            raise ForeignOwnerError(
                f"{shown_path(path)} belongs to another user of this machine (uid {found.st_uid}).",
                hint=OWN_FOLDER,
            )
