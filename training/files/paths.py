"""Which files may be read and written on somebody's behalf."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path, PureWindowsPath
from urllib.parse import urlsplit

from ..errors import PathForbiddenError
from ..next_step import then
from ..untrusted import one_line, quoted, short_name, shown_path
from .credential_places import in_credential_place
from .principal_folder import PRINCIPALS, principal_folder
from .windows_paths import reason_against

MORE_TEMPLATES = "additional_chat_templates"  # the one folder in a model's folder that is read
ONLY_ROOTS = "only"
"""In a record: the user's home is not permitted. No path, since paths are absolute."""
OWN_RUNS = "runs-of:"
"""In a record: of the home of runs, only a principal's own runs may be read; its folder's name follows."""
READABLE = (("runs",), ("models",), ("files",))
"""Folders of the home that assistants may read: beside them are tokens and logs of servers."""
PATH_LENGTH = 4096  # characters; the most that an operating system takes
UI_OUTPUTS = "ui-outputs"
"""Folder of the home that the web page writes to, where it is a root."""
POSIX_SYSTEM = ("/bin", "/boot", "/dev", "/etc", "/lib", "/lib64", "/proc", "/sbin", "/sys", "/usr", "/var")
MACOS_SYSTEM = ("/Library", "/System")
IN_VAR_BUT_OF_USERS = ("/var/folders", "/var/home", "/var/mnt", "/var/tmp")
"""Temporary folders of macOS, homes and disks of ostree systems, and the temporary files that stay."""
IN_LIBRARY_BUT_OF_USERS = ("mobile documents", "cloudstorage")
"""Where macOS keeps the folders of iCloud, Dropbox and their like."""
WINDOWS_SYSTEM = ("SystemRoot", "ProgramFiles", "ProgramFiles(x86)", "ProgramData")


@dataclass(frozen=True)
class PathPolicy:
    """Resolves a path, links included, and refuses paths outside the allowed folders.

    Args:
        roots: folders that an assistant may access; None for a person at the command line, who may
            access anything but system and credential folders.
        home: the home folder of runs and models, which may be read though it is hidden.
        working: folders that an assistant's relative paths may begin in.
        user_home: whether an assistant may also access the user's home, without its hidden folders.
        own_runs: the folder with the ids of the only runs whose files may be read, named as the folder of the
            only uploaded files; None: every run and file.
    """

    roots: tuple[Path, ...] | None
    home: Path
    working: tuple[Path, ...] = ()
    user_home: bool = True
    own_runs: Path | None = None

    @classmethod
    def for_assistant(cls, roots: Sequence[Path], home: Path, *, user_home: bool = True) -> PathPolicy:
        """Each root, and the user's home if an assistant of the user's own asks."""
        resolved = tuple(root.expanduser().resolve() for root in roots)
        return cls(resolved, home.resolve(), user_home=user_home)

    @classmethod
    def for_person(cls, home: Path) -> PathPolicy:
        return cls(None, home.resolve())

    def of(self, principal: str | None) -> PathPolicy:
        """What this principal may access: of the home of runs, only its own."""
        if principal is None:
            return self
        return replace(self, own_runs=principal_folder(self.home, principal))

    def with_working_folders(self, folders: Sequence[Path]) -> PathPolicy:
        """Also permit the folders that the user works in, and begin relative paths there.

        A folder that contains the user's home, or is closed (hidden, of the system, of credentials), is left
        out: only the user can permit that, on the server's command line.
        """
        assert self.roots is not None and self.user_home
        user = Path.home().resolve()
        resolved = [folder.resolve() for folder in folders]
        working = [
            folder
            for folder in resolved
            if not user.is_relative_to(folder)
            and not _in_system_folder(folder)
            and not in_credential_place(folder)
            and not _hidden_in(folder, user)
        ]
        roots = dict.fromkeys([*self.roots, *working])
        return PathPolicy(tuple(roots), self.home, tuple(working))

    def resolve(self, given: str, argument: str, *, write: bool = False) -> str:
        """The absolute path, with every link followed.

        Args:
            write: whether something is to be written there.

        Raises:
            PathForbiddenError: it is relative where that is refused, or outside the allowed folders.
        """
        path = _path_of(given, argument)
        if isinstance(path, PureWindowsPath):
            self._require_plain(path, argument)
        if self.roots is not None and not path.is_absolute():
            path = self._in_working_folder(path)
        if self.roots is not None and not path.is_absolute():
            raise PathForbiddenError(
                f"{argument}: {shown_path(given)} is a relative path.",
                hint="Give the absolute path: the server does not know the client's working folder.",
            )
        resolved = _resolved(path, argument)
        reason = self._reason_against(resolved, write)
        if reason:
            raise self._forbidden(f"{argument}: {shown_path(resolved)} {reason}.")
        return str(resolved)

    def _require_plain(self, path: PureWindowsPath, argument: str) -> None:
        """Raises PathForbiddenError for what must not even be looked at on Windows."""
        known = [PureWindowsPath(folder) for folder in (*(self.roots or ()), self.home, Path.home())]
        reason = reason_against(path, None if self.roots is None else known)
        if reason:
            raise self._forbidden(f"{argument}: {shown_path(path)} {reason}.")

    def _in_working_folder(self, path: Path) -> Path:
        """The path in the first working folder that has it, or in the only one; else as it is."""
        found = [folder / path for folder in self.working]
        there = [each for each in found if _exists(str(each))]
        return there[0] if there else found[0] if len(found) == 1 else path

    def permit(self, path: Path) -> None:
        """Raises PathForbiddenError for a file that may not be read; links are followed."""
        self.resolve(str(path.absolute()), "dataset")

    def permit_links(self, folder: Path, argument: str) -> None:
        """Hold every link in the folder of a model or an adapter against the rules for the folder itself.

        Raises:
            PathForbiddenError: a file of the folder is a link to a file that may not be read.
        """
        self.resolve(str(folder.absolute()), argument)  # a folder above it may have become a link
        for inside in read_in(folder):
            for entry in inside.iterdir() if inside.is_dir() else ():
                if entry.is_symlink() or inside.is_symlink():
                    self.resolve(str(entry.absolute()), f"{argument}: a link in {short_name(folder.name)}")

    def recorded(self) -> list[str] | None:
        """The roots as a spec holds them, so that the run's worker is bound by them as well."""
        if self.roots is None:
            return None
        words = [] if self.user_home else [ONLY_ROOTS]
        words += [f"{OWN_RUNS}{self.own_runs.name}"] if self.own_runs else []
        return [*words, *map(str, self.roots)]

    @classmethod
    def from_record(cls, roots: Sequence[str] | None, home: Path) -> PathPolicy:
        if roots is None:
            return cls.for_person(home)
        folders = [Path(root) for root in roots if root != ONLY_ROOTS and not root.startswith(OWN_RUNS)]
        policy = cls.for_assistant(folders, home, user_home=ONLY_ROOTS not in roots)
        own = next((root.removeprefix(OWN_RUNS) for root in roots if root.startswith(OWN_RUNS)), None)
        return replace(policy, own_runs=policy.home / PRINCIPALS / Path(own).name) if own else policy

    def _reason_against(self, path: Path, write: bool) -> str | None:
        if in_credential_place(path):
            return "is in a folder of credentials"
        if self.roots is None:
            return "is in a system folder" if _in_system_folder(path) else None
        if self._is_of_others(path):
            return "is outside the folders that this server may access"
        if _is_in(path, self.home) and not self._is_ui_output(path):
            # In other letters, as macOS permits, nothing of it is found to be readable.
            exact = path.is_relative_to(self.home)
            readable = exact and path.relative_to(self.home).parts[:1] in READABLE and not write
            return None if readable else "is in the home folder of runs and models"
        if any(path.is_relative_to(root) for root in self.roots):
            return None
        user = _real_home(Path.home())
        if not self.user_home or not path.is_relative_to(user):
            return "is outside the folders that this server may access"
        hidden = _hidden_in(path, user)
        return f"is in the hidden folder {quoted(hidden[0])}" if hidden else None

    def _is_ui_output(self, path: Path) -> bool:
        folder = self.home / UI_OUTPUTS
        return folder in (self.roots or ()) and path.is_relative_to(folder)

    def _is_of_others(self, path: Path) -> bool:
        """Whether a principal would reach into the home of runs, besides its own runs and the models."""
        if self.own_runs is None or not _folded(path).is_relative_to(_folded(self.home)):
            return False
        # In other letters, as some file systems permit, no run is found to be its own.
        match path.relative_to(self.home).parts if path.is_relative_to(self.home) else ():
            case ("runs", run_id, *_):
                return not (self.own_runs / run_id).is_file()
            case ("files", whose, *_):
                return whose != self.own_runs.name
            case (folder, *_):
                return folder in ("runs", "files")
            case _:
                return True

    def _forbidden(self, message: str) -> PathForbiddenError:
        if self.roots is None:
            return PathForbiddenError(message, hint="Use a folder of your own.")
        return PathForbiddenError(
            message,
            hint=f"Use a file in {self._permitted()}, or allow another folder.",
            next=then("add_root", folder=...),
        )

    def _permitted(self) -> str:
        if self.user_home:
            return "the user's home folder"
        return ", ".join(map(shown_path, self.roots or ())) or "the home folder of runs and models"


def read_in(folder: Path) -> tuple[Path, Path]:
    """The folders of a model or an adapter that files are read from."""
    return folder, folder / MORE_TEMPLATES


def _is_in(path: Path, folder: Path) -> bool:
    """Whether a path is in a folder, which some file systems also know by its name in other letters."""
    if path.is_relative_to(folder):
        return True
    if not _folded(path).is_relative_to(_folded(folder)):
        return False
    try:
        return Path(*path.parts[: len(folder.parts)]).samefile(folder)
    except OSError:  # one of them does not exist
        return False


def _folded(path: Path) -> Path:
    return Path(str(path).casefold())


@cache
def _real_home(home: Path) -> Path:
    """Kept, since it is asked for with each of a dataset's files."""
    return home.resolve()


def _hidden_in(path: Path, user: Path) -> list[str]:
    """The folders on the way to the path that the user's file manager hides; none outside the user's home."""
    if not path.is_relative_to(user):
        return []
    parts = path.relative_to(user).parts
    hidden = [part for part in parts if part.startswith(".") or part.casefold() == "appdata"]
    return [*hidden, *_hidden_by_macos(parts)] if sys.platform == "darwin" else hidden


def _hidden_by_macos(parts: Sequence[str]) -> Sequence[str]:
    match [part.casefold() for part in parts[:2]]:
        case ["library"]:
            return parts[:1]
        case ["library", inside] if inside not in IN_LIBRARY_BUT_OF_USERS:
            return parts[:1]
        case _:
            return ()


FILE_URI = re.compile("file:/", re.IGNORECASE)


def without_uri(given: str) -> str:
    """The path of a `file:` URI of this machine; anything else as it is."""
    if not FILE_URI.match(given):
        return given
    from urllib.request import url2pathname  # imports HTTP

    uri = urlsplit(given)
    if uri.netloc not in ("", "localhost") or uri.query or uri.fragment:
        return given
    return url2pathname(uri.path)


def _path_of(given: str, argument: str) -> Path:
    """The path that is meant by a path, a path from `~`, or a `file:` URI."""
    text = without_uri(given)
    if "://" in text:
        raise PathForbiddenError(
            f"{argument}: {shown_path(given)} is a URL.",
            hint="Download it first, then give the file's path. "
            "A file:// URI names a file of this machine, with # and ? as %23 and %3F.",
        )
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise PathForbiddenError(
            f"{argument}: {shown_path(given)} names the home of an unknown user.",
            hint="Give the absolute path.",
        ) from error


def looks_like_path(name: str) -> bool:
    """Whether a name that may also mean something else is a path of this machine.

    It is one if it begins with `.` or `~`, is absolute, is a `file:` URI, has a backslash, or exists.
    """
    if FILE_URI.match(name):
        return True
    if name.startswith((".", "~")) or "\\" in name:
        return True
    return Path(name).is_absolute() or _exists(name)


def _exists(name: str) -> bool:
    try:
        return len(name) <= PATH_LENGTH and Path(name).exists()
    except (OSError, ValueError):  # a part that is too long, or a NUL
        return False


def _resolved(path: Path, argument: str) -> Path:
    """The path with every link followed.

    Raises:
        PathForbiddenError: no file can have it.
    """
    reason = f"it has {len(str(path)):,} characters; the limit is {PATH_LENGTH:,}"
    if len(str(path)) <= PATH_LENGTH:
        try:
            return path.resolve()
        except (OSError, ValueError, RuntimeError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    raise PathForbiddenError(
        f"{argument}: {quoted(path)} is no path of a file ({one_line(reason, 200)}).",
        hint="Give the path of an existing file or folder.",
    )


def _in_system_folder(path: Path) -> bool:
    if os.name == "nt":
        folders = [Path(os.environ[name]) for name in WINDOWS_SYSTEM if name in os.environ]
    else:
        folders = _with_real(POSIX_SYSTEM + (MACOS_SYSTEM if sys.platform == "darwin" else ()))
    return any(path.is_relative_to(folder) for folder in folders) and not _is_of_users(path)


def _is_of_users(path: Path) -> bool:
    """Whether a path in /var is none of the system's: temporary folders, and homes of some accounts."""
    own = [Path(tempfile.gettempdir()).resolve(), _real_home(Path.home())]
    var = _with_real(("/var",))
    inside = [folder for folder in own if any(each in folder.parents for each in var)]
    return any(path.is_relative_to(folder) for folder in (*_with_real(IN_VAR_BUT_OF_USERS), *inside))


def _with_real(names: Sequence[str]) -> list[Path]:
    """The folders, and what they are links to: /etc is one on macOS."""
    return [folder for name in names for folder in (Path(name), Path(name).resolve())]
