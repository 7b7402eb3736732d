"""A model of the Hub: from its cache, or downloaded into it. HF_HOME, HF_TOKEN and HF_HUB_OFFLINE apply.

A network call cannot be interrupted, so each runs in a background thread that is abandoned when the user
stops or after a timeout. Complete files stay in the cache; huggingface_hub downloads the others again.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ModelLoadError, TrainingAbortedError
from ..events import Phase, Report, ShouldStop, never_stop
from ..files.atomic_json import read_json
from ..files.background_call import background_call
from ..redact import scrub
from ..untrusted import short_name, shown_path
from .model_folder import missing_from

WEIGHTS = ["*.safetensors"]
WANTED = ["*.json", "*.jinja", "*.model", "merges.txt", "vocab.txt", "README.md"]
UNWANTED = ["*/*", "consolidated*", "adapter_*"]
"""Other formats' folders, second copies of the weights, and adapters beside them."""

FIRST_ANSWER_S = 5.0
STOPPED = "Stopped while the model was being downloaded."


class HubUnreachableError(ModelLoadError):
    """The Hub cannot be reached, and the model is not in the cache."""

    retryable_by_default = True


def hub_model(
    hub_id: str, revision: str | None, report: Report, should_stop: ShouldStop, *, weights: bool = True
) -> Path:
    """The folder of a Hub model, complete; without `weights`, all but those.

    Raises:
        ModelLoadError: it is gated, unknown, unreachable and not in the cache, or has no safetensors.
        TrainingAbortedError: `should_stop` said so.
    """
    report(Phase(phase="downloading", message=f"Looking for {hub_id} on the Hub."))
    problem = _ask(hub_id, revision, should_stop)
    if problem is None:
        folder = _download(hub_id, revision, report, should_stop, weights)
    else:
        cached = _cached(hub_id, revision, weights)
        if cached is None:
            raise hub_error(problem, hub_id, revision)
        report(Phase(phase="downloading", message=f"Using the copy of {hub_id} in the cache."))
        folder = cached
    missing = missing_from(folder) if weights else None
    if missing:
        raise ModelLoadError(f"The Hub's {hub_id} lacks {missing}.", hint="Choose another model.")
    return folder


def _ask(hub_id: str, revision: str | None, should_stop: ShouldStop) -> Exception | None:
    """The error of asking the Hub for this model, or None; takes a few seconds at most."""
    from huggingface_hub import HfApi

    def ask() -> object:
        return HfApi().model_info(hub_id, revision=revision, timeout=FIRST_ANSWER_S)

    try:
        background_call(ask, should_stop, STOPPED, seconds=FIRST_ANSWER_S)
    except TrainingAbortedError:
        raise
    except Exception as error:  # reported to the user, unless the model is in the cache
        return error
    return None


def _cached(hub_id: str, revision: str | None, weights: bool) -> Path | None:
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return _snapshot(hub_id, revision, weights, local_files_only=True)
    except LocalEntryNotFoundError:
        return None


def _download(
    hub_id: str, revision: str | None, report: Report, should_stop: ShouldStop, weights: bool
) -> Path:
    progress = DownloadProgress()
    bar = _progress_bar(progress)

    def report_bytes() -> None:
        if progress.total:
            done, total = progress.done / 1e6, progress.total / 1e6
            message = f"Downloading {hub_id}: {done:,.0f} of {total:,.0f} MB."
            fraction = min(1.0, progress.done / progress.total)
            report(Phase(phase="downloading", message=message, fraction=fraction))

    def download() -> Path:
        return _snapshot(hub_id, revision, weights, tqdm_class=bar)

    try:
        return background_call(download, should_stop, STOPPED, while_waiting=report_bytes)
    except TrainingAbortedError:
        raise
    except Exception as error:
        raise hub_error(error, hub_id, revision) from error
    finally:
        progress.abandoned = True


def _snapshot(hub_id: str, revision: str | None, weights: bool, **options: Any) -> Path:
    import huggingface_hub

    library: Any = huggingface_hub  # its signature is only half typed
    wanted = WANTED + WEIGHTS if weights else WANTED
    folder = library.snapshot_download(
        hub_id, revision=revision, allow_patterns=wanted, ignore_patterns=UNWANTED, **options
    )
    return Path(folder)


@dataclass
class DownloadProgress:
    """State shared with the download's threads: bytes done, bytes in all, and whether it was abandoned."""

    done: int = 0
    total: int = 0
    abandoned: bool = False


def _progress_bar(progress: DownloadProgress) -> type[Any]:
    """A tqdm that prints nothing, records the bytes, and ends an abandoned download."""
    import tqdm

    base: Any = tqdm.tqdm

    class Nowhere(io.StringIO):
        def write(self, text: str, /) -> int:
            return len(text)

    class Bar(base):
        monitor_interval = 0

        def __init__(self, *arguments: Any, **options: Any) -> None:
            parent: Any = super()
            parent.__init__(*arguments, **{**options, "file": Nowhere()})

        def update(self, n: float | None = 1) -> bool | None:
            if progress.abandoned:
                raise TrainingAbortedError("The download was stopped.")
            parent: Any = super()
            shown: bool | None = parent.update(n)
            if self.unit == "B" and self.n >= progress.done:
                progress.done, progress.total = int(self.n), int(self.total or 0)
            return shown

    return Bar


def hub_error(error: Exception, hub_id: str, revision: str | None) -> Exception:
    """The library's error as one of this package, with a hint."""
    from huggingface_hub import errors

    if isinstance(error, errors.LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
        error = error.__cause__
    match error:
        case errors.GatedRepoError():
            return ModelLoadError(
                f"{hub_id} is gated: its licence must be accepted before the download.",
                hint="Accept the licence on the model's page on the Hub, then set HF_TOKEN to your token.",
                cause=error,
            )
        case errors.RepositoryNotFoundError():
            return ModelLoadError(
                f"The Hub has no model {hub_id}, or it is private.",
                hint="Check the spelling. For a private model set HF_TOKEN to a token with read permission.",
                cause=error,
            )
        case errors.RevisionNotFoundError():
            return ModelLoadError(
                f"{hub_id} has no revision {short_name(revision)}.",
                hint="Give a branch, a tag or a commit.",
                cause=error,
            )
        case errors.HfHubHTTPError() if error.response.status_code < 500:
            return _refused(error, hub_id)
        case _:
            return _unreachable(error, hub_id)


def _refused(error: Any, hub_id: str) -> ModelLoadError:
    status: int = error.response.status_code
    hints = {
        401: "Set HF_TOKEN to a valid token, or unset it.",
        403: "Set HF_TOKEN to a token with read permission for this model.",
        429: "Too many requests: wait a few minutes, or set HF_TOKEN.",
    }
    return ModelLoadError(
        f"The Hub refused {hub_id} with HTTP status {status}.",
        hint=hints.get(status, "Try again later, or give the path of a model folder."),
        cause=error,
        retryable=status in (408, 429),
    )


def _unreachable(error: Exception, hub_id: str) -> HubUnreachableError:
    from huggingface_hub import constants, errors

    if isinstance(error, errors.OfflineModeIsEnabled):
        return HubUnreachableError(
            f"{hub_id} is not complete in the cache {shown_path(constants.HF_HUB_CACHE)}, and "
            "HF_HUB_OFFLINE is set.",
            hint="Unset HF_HUB_OFFLINE to download it, or give the path of a model folder.",
            cause=error,
            retryable=False,
        )
    return HubUnreachableError(
        f"{hub_id} is not complete in the cache, and the Hub ({constants.ENDPOINT}) failed: "
        f"{type(error).__name__}.",
        hint="Check the network and try again, or give the path of a model folder.",
        cause=error,
        untrusted=scrub(str(error)),
    )


def hub_config(hub_id: str, revision: str | None) -> dict[str, Any] | None:
    """The config.json of a Hub model and nothing else; None if it cannot be had within seconds.

    Never raises: what is wrong with the name or the network is told when the model is downloaded.
    """
    try:
        import huggingface_hub

        hub: Any = huggingface_hub  # its types are partly unknown

        def ask() -> str:
            return hub.hf_hub_download(hub_id, "config.json", revision=revision, etag_timeout=FIRST_ANSWER_S)

        path = background_call(ask, never_stop, STOPPED, seconds=FIRST_ANSWER_S)
        found = read_json(Path(path))
    except Exception:  # also that huggingface_hub is not installed
        return None
    return found
