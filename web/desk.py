"""What every page has at hand: the service, the folders, the sessions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from starlette.requests import Request

from ..server.calls.audit_log import AuditLog
from ..tools.context import ToolContext
from ..training.errors import OutputFolderForbiddenError, PathForbiddenError
from ..training.events import Event
from ..training.files.paths import PathPolicy
from ..training.files.private_folder import make_private
from ..training.service import TrainingService
from ..training.untrusted import shown_path
from .passwords import Accounts
from .rate_limit import RateLimit
from .session import Session, Sessions

NAMES_SHOWN = 200
LOGINS, LOGINS_PER_S = 5, 0.1  # of one address; behind a tunnel, of all


@dataclass
class Desk:
    """What pages share.

    Args:
        outputs: the one folder that pages write to.
        paths: what pages may read; relative paths begin in `outputs`.
        accounts: none where no password is asked for.
        cookie: name of the session's cookie.
    """

    service: TrainingService
    outputs: Path
    paths: PathPolicy
    accounts: Accounts
    cookie: str
    log: AuditLog
    sessions: Sessions = field(default_factory=Sessions)
    logins: RateLimit = field(default_factory=lambda: RateLimit(LOGINS, LOGINS_PER_S))

    def context(self) -> ToolContext:
        """For a tool: what an assistant may, a person at the page may too."""
        return ToolContext(self.service, self.paths, _nothing)

    def output_of(self, form: Mapping[str, str]) -> str | None:
        """The absolute path of what a form's `output` names; None if it is empty.

        Raises:
            OutputFolderForbiddenError: it is not in the output folder.
        """
        given = form.get("output", "").strip()
        if not given:
            return None
        try:
            path = Path(self.paths.resolve(given, "output", write=True))
        except PathForbiddenError as error:
            raise OutputFolderForbiddenError(error.message, hint=self._hint()) from None
        if not path.is_relative_to(self.outputs) or path == self.outputs:
            raise OutputFolderForbiddenError(
                f"output: {shown_path(path)} is not in the page's output folder.", hint=self._hint()
            )
        make_private(self.outputs)
        return str(path)

    def uploads(self) -> list[str]:
        """Names of the files in the output folder, newest first."""
        if not self.outputs.is_dir():
            return []
        files = [entry for entry in self.outputs.iterdir() if entry.is_file() and not entry.is_symlink()]
        newest = sorted(files, key=lambda file: file.stat().st_mtime, reverse=True)
        return [file.name for file in newest[:NAMES_SHOWN]]

    def _hint(self) -> str:
        return f"Give a name without a folder: it is written to {shown_path(self.outputs)}."


def desk_of(request: Request) -> Desk:
    return request.app.state.desk


def session_of(request: Request) -> Session:
    return request.state.session


async def _nothing(events: Sequence[Event]) -> None:
    """Progress is told by the run's own page."""
