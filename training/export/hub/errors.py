"""Errors of a push with the next step; what the Hub said stands beside, without tokens and signed URLs."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ...errors import HubPushError
from ...redact import HIDDEN, scrub
from ...untrusted import one_line, quoted

ADDRESS = re.compile(r"(https?://[^\s?'\"<>]+)\?[^\s'\"<>]+")
QUOTA = re.compile(r"storage|quota|limit reached|billing|payment", re.IGNORECASE)

WRITE_TOKEN = "Make a token with write permission at https://huggingface.co/settings/tokens and set HF_TOKEN."
AGAIN = "Push again: an interrupted upload resumes."


def push_error(error: Exception, repo: str, token: str) -> HubPushError:
    """The library's error as one of ours."""
    from huggingface_hub import errors

    for found in _chain(error):
        match found:
            case errors.OfflineModeIsEnabled():
                return HubPushError("HF_HUB_OFFLINE is set.", hint="Unset it to push.")
            case errors.HFValidationError():
                return HubPushError(f"{quoted(repo)} is not a repository name.", hint="Write owner/name.")
            case errors.HfHubHTTPError():
                reason = _words(found.server_message or str(found), token)
                return _refused(found.response.status_code, reason, repo)
            case _:
                pass
    chain = list(_chain(error))
    kind, said = type(chain[-1]).__name__, _words(str(chain[-1]), token)
    if any(_is_of_the_network(found) for found in chain):
        return HubPushError(
            f"The connection to the Hub failed: {kind}.", hint=AGAIN, retryable=True, untrusted=said
        )
    return HubPushError(
        f"The push failed: {kind}.",
        hint="If the model card is the reason, correct README.md.",
        untrusted=said,
    )


def _is_of_the_network(error: BaseException) -> bool:
    """Network errors, also those of the HTTP libraries and of hf_xet."""
    library = type(error).__module__.partition(".")[0]
    return isinstance(error, OSError | RuntimeError) or library.startswith(("httpx", "httpcore", "hf_xet"))


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error, and what led to it."""
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__ or found.__context__


def _refused(status: int, reason: str, repo: str) -> HubPushError:
    if status in (402, 413) or (status == 403 and QUOTA.search(reason)):
        return HubPushError(
            f"The Hub has no storage left for {repo}.",
            hint="Free or extend storage in the Hub's billing settings, or push a smaller adapter.",
            untrusted=reason,
        )
    hints = {
        400: f"The Hub rejected the content sent to {repo}.",
        401: "Set HF_TOKEN to a valid token, or log in with `hf auth login`.",
        403: f"The token has no write permission for {repo}. {WRITE_TOKEN}",
        404: f"Check the name {repo}, and that the token has write permission for it.",
        409: f"{repo} was changed during the push. {AGAIN}",
        412: f"{repo} was changed during the push. {AGAIN}",
        429: f"Too many requests: wait a few minutes. {AGAIN}",
    }
    later = status in (408, 409, 412, 429) or status >= 500
    return HubPushError(
        f"The Hub refused the push to {repo} with HTTP status {status}.",
        hint=hints.get(status, AGAIN if later else "Correct what the Hub's message names."),
        retryable=later,
        untrusted=reason,
    )


def _words(text: str, token: str) -> str:
    """The first line, without the token and without signed addresses."""
    lines = [line for line in text.splitlines() if line.strip()] or ["no reason given"]
    plain = ADDRESS.sub(r"\1", lines[0].replace(token, HIDDEN))
    return one_line(scrub(plain), 300).rstrip(".")
