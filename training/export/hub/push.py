"""Publishes files in a model repository of the Hub, in one commit: all of them or none.

The token is huggingface_hub's own: HF_TOKEN, or `hf auth login`. Weights are uploaded first, one file at a
time; what the Hub already has is not sent again, so an interrupted upload resumes.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from ...errors import BackpropagateError, HubPushError
from ...events import Phase, Report, ShouldStop, never_stop, no_report, throttled
from ...files.background_call import background_call
from ...version import __version__
from .errors import push_error
from .existing import Existing, check_visibility, replaced_weights
from .published_files import CARD, PublishedFile

T = TypeVar("T")

STOPPED = "Cancelled; the repository is unchanged. The next push resumes the upload."


@dataclass(frozen=True)
class Destination:
    """Where to.

    Args:
        repo: `owner/name`.
        private: whether a repository that has to be created is private.
        overwrite: whether other weights and somebody's own card in the repository may be replaced.
    """

    repo: str
    private: bool = True
    overwrite: bool = False


@dataclass(frozen=True)
class Pushed:
    """The published files. `commit` is the repository's newest; `bytes` is the size of all files.

    Args:
        card_kept: whether the repository's own README.md was left as it is.
    """

    repo: str
    url: str
    commit: str
    private: bool
    created: bool
    files: tuple[str, ...]
    bytes: int
    card_kept: bool = False


def push(
    files: Sequence[PublishedFile],
    to: Destination,
    report: Report = no_report,
    should_stop: ShouldStop = never_stop,
    *,
    before_commit: Callable[[], object] = lambda: None,
) -> Pushed:
    """Publish `files`; the repository is created if there is none.

    Args:
        report: its fractions are shares of the weights' bytes.
        should_stop: looked at several times a second.
        before_commit: called when the weights are uploaded, before they can be seen; raises if one of the
            files was exchanged.

    Raises:
        HubPushError: no token, no permission, other weights in the repository, or no network.
        TrainingAbortedError: `should_stop` said so.
    """
    with _quiet():
        return _Push(files, to, report, should_stop, before_commit).run()


@contextmanager
def _quiet() -> Generator[None]:
    """huggingface_hub logs each retry with its URL, signature included."""
    from huggingface_hub import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


class _Push:
    def __init__(
        self,
        files: Sequence[PublishedFile],
        to: Destination,
        report: Report,
        should_stop: ShouldStop,
        before_commit: Callable[[], object],
    ) -> None:
        self._files, self._to, self._report, self._should_stop = files, to, report, should_stop
        self._before_commit = before_commit
        self._report_some = throttled(report)
        self._token = _token()
        from huggingface_hub import HfApi

        self._api: Any = HfApi(token=self._token)  # its signatures are only half typed
        self._done = 0  # bytes of weights; the other files are small, and go with the commit
        self._total = sum(file.size for file in files if file.is_weights)

    def run(self) -> Pushed:
        self._report(Phase(phase="uploading", message=f"looking at {self._to.repo} on the Hub"))
        found, created = self._call(self._repository)
        existing = Existing(found, lambda name: self._call(lambda: self._text_of(name, found.sha)))
        replaced = replaced_weights(existing, self._files, self._to.repo, self._to.overwrite)
        check_visibility(found, self._to.repo, self._to.private)
        card_kept = not self._to.overwrite and existing.has_a_card_of_somebody(self._files)
        if card_kept:
            self._files = [file for file in self._files if file.name != CARD]
        operations = [_addition(file) for file in self._files]
        for file, operation in zip(self._files, operations, strict=True):
            if file.is_weights:
                self._upload(file, operation)
        message = f"committing {len(operations)} files to {self._to.repo}"
        self._report(Phase(phase="uploading", message=message))
        self._before_commit()
        commit = self._call(lambda: self._commit([*operations, *replaced], found.sha))
        return Pushed(
            repo=self._to.repo,
            url=f"{self._api.endpoint}/{self._to.repo}",
            commit=commit.oid,
            private=bool(found.private),
            created=created,
            files=tuple(file.name for file in self._files),
            bytes=sum(file.size for file in self._files),
            card_kept=card_kept,
        )

    def _text_of(self, name: str, revision: str) -> str | None:
        """The text of a small file of the repository; None if it cannot be had."""
        from huggingface_hub.errors import EntryNotFoundError

        with TemporaryDirectory() as folder:
            try:
                path = self._api.hf_hub_download(self._to.repo, name, revision=revision, cache_dir=folder)
            except EntryNotFoundError:
                return None
            return Path(path).read_text("utf-8", "replace")

    def _repository(self) -> tuple[Any, bool]:
        """The Hub's description of the repository, and whether it was created now."""
        from huggingface_hub.errors import RepositoryNotFoundError

        try:
            return self._api.model_info(self._to.repo), False
        except RepositoryNotFoundError:
            self._api.create_repo(self._to.repo, private=self._to.private, exist_ok=True)
            return self._api.model_info(self._to.repo), True

    def _upload(self, file: PublishedFile, operation: Any) -> None:
        earlier = live_bars()  # of uploads that failed

        def report_bytes() -> None:
            sent = self._done + min(bytes_under_way(earlier), file.size)
            self._report_some(self._uploading(f"uploading {file.name}", sent))

        report_bytes()
        self._call(lambda: self._api.preupload_lfs_files(self._to.repo, additions=[operation]), report_bytes)
        self._done += file.size
        self._report(self._uploading(f"uploaded {file.name}", self._done))

    def _uploading(self, what: str, sent: int) -> Phase:
        message = f"{what}: {sent / 1e6:,.1f} of {self._total / 1e6:,.1f} MB"
        return Phase(phase="uploading", message=message, fraction=sent / self._total)

    def _commit(self, operations: list[Any], parent: str | None) -> Any:
        message = f"Upload with backpropagate {__version__}"
        # The parent makes the Hub refuse the commit if somebody else has pushed meanwhile.
        return self._api.create_commit(
            self._to.repo, operations, commit_message=message, parent_commit=parent
        )

    def _call(self, work: Callable[[], T], while_waiting: Callable[[], None] = lambda: None) -> T:
        try:
            return background_call(work, self._should_stop, STOPPED, while_waiting=while_waiting)
        except BackpropagateError:
            raise
        except Exception as error:  # the library also raises its dependencies' errors
            # Without its cause: the library's messages may contain signed URLs, and logs are kept.
            raise push_error(error, self._to.repo, self._token) from None


def _token() -> str:
    from huggingface_hub import get_token

    token = get_token()
    if not token:
        raise HubPushError("No access token for the Hub is set.")
    return token


def _addition(file: PublishedFile) -> Any:
    from huggingface_hub import CommitOperationAdd

    return CommitOperationAdd(file.name, file.content)


def live_bars() -> list[Any]:
    """The progress bars that are being drawn: huggingface_hub reports sent bytes only to them."""
    from huggingface_hub.utils import tqdm

    bars: Any = tqdm
    with bars.get_lock():
        return list(bars._instances)


def bytes_under_way(earlier: Sequence[Any]) -> int:
    """Bytes of the current file that were sent, from the bars that did not exist `earlier`."""
    new = [bar for bar in live_bars() if not any(bar is other for other in earlier)]
    return max((int(bar.n) for bar in new if bar.unit == "B"), default=0)
