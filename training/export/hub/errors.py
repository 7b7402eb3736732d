"""What went wrong with a push, and the next step; never with a token or a signed address."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ...errors import HubPushError
from ...redact import HIDDEN, cleaned, scrub

ADDRESS = re.compile(r"(https?://[^\s?'\"<>]+)\?[^\s'\"<>]+")
QUOTA = re.compile(r"storage|quota|limit reached|billing|payment", re.IGNORECASE)

WRITE_TOKEN = "Make a token with write permission at https://huggingface.co/settings/tokens and set HF_TOKEN."
AGAIN = "Push again: what was uploaded is not sent again."


def push_error(error: Exception, repo: str, token: str) -> HubPushError:
    """The library's error as one of ours."""
    from huggingface_hub import errors

    for found in _chain(error):
        match found:
            case errors.OfflineModeIsEnabled():
                return HubPushError("HF_HUB_OFFLINE is set.", hint="Unset it to push.")
            case errors.HFValidationError():
                return HubPushError(f"{repo!r} is not a repository's name.", hint="Write owner/name.")
            case errors.HfHubHTTPError():
                told = _words(found.server_message or str(found), token)
                return _refused(found.response.status_code, told, repo)
            case _:
                pass
    chain = list(_chain(error))
    reason = _words(str(chain[-1]) or type(chain[-1]).__name__, token)
    if any(_is_of_the_network(found) for found in chain):
        return HubPushError(f"The Hub did not answer, or broke off: {reason}.", hint=AGAIN, retryable=True)
    return HubPushError(f"The push failed: {reason}.", hint="If the card is meant, correct README.md.")


def _is_of_the_network(error: BaseException) -> bool:
    """Also what the HTTP libraries raise, whichever one is used, and what hf_xet does."""
    library = type(error).__module__.partition(".")[0]
    return isinstance(error, OSError | RuntimeError) or library.startswith(("httpx", "httpcore", "hf_xet"))


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error, and what led to it."""
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__ or found.__context__


def _refused(status: int, told: str, repo: str) -> HubPushError:
    if status in (402, 413) or (status == 403 and QUOTA.search(told)):
        return HubPushError(
            f"The Hub has no room for {repo}: {told}",
            hint="Free storage or extend it in the Hub's billing settings, or push a smaller adapter.",
        )
    hints = {
        400: f"The Hub did not accept what was sent to {repo}.",
        401: "Set HF_TOKEN to a valid token, or log in with `hf auth login`.",
        403: f"The token may not write to {repo}. {WRITE_TOKEN}",
        404: f"Check the name {repo}, and that the token may write there.",
        409: f"{repo} was changed meanwhile, or is being changed. {AGAIN}",
        412: f"{repo} was changed meanwhile. {AGAIN}",
        429: f"Too many requests: wait some minutes. {AGAIN}",
    }
    later = status in (408, 409, 412, 429) or status >= 500
    return HubPushError(
        f"The Hub refused the push to {repo} with HTTP status {status}: {told}",
        hint=hints.get(status, AGAIN if later else "See what the Hub says."),
        retryable=later,
    )


def _words(text: str, token: str) -> str:
    """The first line, without the token and without signed addresses."""
    lines = [line for line in text.splitlines() if line.strip()] or ["no reason given"]
    plain = ADDRESS.sub(r"\1", lines[0].replace(token, HIDDEN))
    return cleaned(scrub(plain), 300).rstrip(".")
