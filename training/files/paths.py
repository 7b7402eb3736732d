"""Which files may be read and written on somebody's behalf."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

from ..errors import PathForbiddenError
from ..next_step import then
from ..untrusted import one_line, quoted, short_name, shown_path
from .credential_places import in_credential_place

MORE_TEMPLATES = "additional_chat_templates"  # the one folder in a model's folder that is read
ONLY_ROOTS = "only"
"""In a record: the user's home is not permitted. No path, since paths are absolute."""
PATH_LENGTH = 4096  # characters; the most that an operating system takes
POSIX_SYSTEM = ("/bin", "/boot", "/dev", "/etc", "/lib", "/lib64", "/proc", "/sbin", "/sys", "/usr")
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
    """

    roots: tuple[Path, ...] | None
    home: Path
    working: tuple[Path, ...] = ()
    user_home: bool = True

    @classmethod
    def for_assistant(cls, roots: Sequence[Path], home: Path, *, user_home: bool = True) -> PathPolicy:
        """Each root, and the user's home if an assistant of the user's own asks."""
        resolved = tuple(root.expanduser().resolve() for root in roots)
        return cls(resolved, home.resolve(), user_home=user_home)

    @classmethod
    def for_person(cls, home: Path) -> PathPolicy:
        return cls(None, home.resolve())

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
        return [*([] if self.user_home else [ONLY_ROOTS]), *map(str, self.roots)]

    @classmethod
    def from_record(cls, roots: Sequence[str] | None, home: Path) -> PathPolicy:
        if roots is None:
            return cls.for_person(home)
        user_home = ONLY_ROOTS not in roots
        return cls.for_assistant(
            [Path(root) for root in roots if root != ONLY_ROOTS], home, user_home=user_home
        )

    def _reason_against(self, path: Path, write: bool) -> str | None:
        if in_credential_place(path):
            return "is in a folder of credentials"
        if self.roots is None:
            return "is in a system folder" if _in_system_folder(path) else None
        if path.is_relative_to(self.home):
            return "is in the home folder of runs and models" if write else None
        if any(path.is_relative_to(root) for root in self.roots):
            return None
        user = _real_home(Path.home())
        if not self.user_home or not path.is_relative_to(user):
            return "is outside the folders that this server may access"
        hidden = _hidden_in(path, user)
        return f"is in the hidden folder {quoted(hidden[0])}" if hidden else None

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


@cache
def _real_home(home: Path) -> Path:
    """Kept, since it is asked for with each of a dataset's files."""
    return home.resolve()


def _hidden_in(path: Path, user: Path) -> list[str]:
    """The hidden folders of the user's home that the path is in."""
    if not path.is_relative_to(user):
        return []
    return [part for part in path.relative_to(user).parts if part.startswith(".") or part == "AppData"]


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
        folders = [folder for name in POSIX_SYSTEM for folder in (Path(name), Path(name).resolve())]
    return any(path.is_relative_to(folder) for folder in folders)
