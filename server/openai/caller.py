"""The service, the paths and the files as the principal of a request sees them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from starlette.requests import Request

from ...tools.context import ToolContext
from ...training.events import Event
from ...training.files.paths import PathPolicy
from ...training.files.uploads import UploadStore
from ...training.service import TrainingService
from ..calls.call_limit import OpenCalls
from ..principal import principal_of

UPLOADS = 2  # at once, of each principal: what is not received whole yet is in the temporary folder


@dataclass(frozen=True)
class Caller:
    """Who asks, and what exists for them."""

    principal: str | None
    service: TrainingService
    paths: PathPolicy
    uploads: UploadStore
    uploading: OpenCalls

    @property
    def context(self) -> ToolContext:
        return ToolContext(self.service, self.paths, _show_nobody)


@dataclass(frozen=True)
class Callers:
    """Makes the caller of each request.

    Args:
        service, paths: of the owner of the home.
        uploading: the uploads that are being received.
    """

    service: TrainingService
    paths: PathPolicy
    uploading: OpenCalls = field(default_factory=lambda: OpenCalls(UPLOADS))

    def of(self, request: Request) -> Caller:
        principal, settings = principal_of(request), self.service.settings
        limits = settings.principal
        uploads = UploadStore(settings.home, principal, limits.disk_gib, limits.free_gib)
        service, paths = self.service.of(principal), self.paths.of(principal)
        return Caller(principal, service, paths, uploads, self.uploading)


async def _show_nobody(_events: Sequence[Event]) -> None:
    pass
