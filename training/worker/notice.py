"""A notice to the user when a run has ended: on the desktop, or to a webhook, as the user's settings say."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

from ..config.results import TrainingResult
from ..config.settings import NotifySettings
from ..errors import StateError
from ..logs import logger
from ..runs.folder import ENDED, RunFolder, RunState
from ..runs.identity import seconds_since
from ..runs.kinds import kind_of
from ..untrusted import one_line, shown_path

ANSWER_S = 10.0
TRIES = 3


def notify(run: RunFolder, settings: NotifySettings) -> None:
    """Tell the user how this attempt of a run has ended, once; a failure is only logged."""
    if not settings.desktop and not settings.webhook:
        return
    with suppress(StateError, OSError):
        state = run.state()
        if _is_worth_a_notice(state, settings) and _is_first(run, state):
            if settings.desktop:
                _on_the_desktop(run, state)
            if settings.webhook:
                _to_the_webhook(settings.webhook.get_secret_value(), _record(run, state))


def _is_worth_a_notice(state: RunState, settings: NotifySettings) -> bool:
    if state.status not in ENDED or not kind_of(state.kind).listed:
        return False
    return seconds_since(state.queued_at or state.created_at) >= settings.after_s


def _is_first(run: RunFolder, state: RunState) -> bool:
    """Whether nobody has told of it: the worker and the process that started it both see the end."""
    try:
        (run.path / f".noticed-{state.attempt}").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def _sentence(run: RunFolder, state: RunState) -> str:
    result = state.result
    verdict = result.judgement if isinstance(result, TrainingResult) else None
    code = state.error.code if state.error else None
    parts = [f"{state.kind} of {shown_path(state.subject or 'a model')} {state.status}", verdict, code]
    said = ": ".join(filter(None, parts)).rstrip(".")  # a verdict is a sentence already
    return one_line(f"{said}. Run {run.run_id}")


def _record(run: RunFolder, state: RunState) -> dict[str, Any]:
    """What a webhook gets; `text` and `content` are the fields that Slack and Discord show."""
    said = _sentence(run, state)
    return {
        "text": said,
        "content": said,
        "run_id": run.run_id,
        "kind": state.kind,
        "status": state.status.value,
        "attempt": state.attempt,
        "model": state.subject,
        "error_code": state.error.code if state.error else None,
        "seconds": round(seconds_since(state.queued_at or state.created_at)),
    }


def _on_the_desktop(run: RunFolder, state: RunState) -> None:
    if find_spec("desktop_notifier") is None:
        logger().warning("no_notice", reason='pip install "backpropagate-mcp[notify]" first')
        return
    from desktop_notifier import DesktopNotifier

    desktop = DesktopNotifier(app_name="backpropagate")
    try:
        # The library's own synchronous door leaves its loop open.
        asyncio.run(desktop.send(title=f"Run {state.status}", message=_sentence(run, state)))
    except Exception as error:  # a desktop that is not there, in whatever way
        logger().warning("no_notice", reason=type(error).__name__)


def _to_the_webhook(url: str, record: dict[str, Any]) -> None:
    import httpx2

    host = urlsplit(url).hostname  # the rest of the address is often a secret
    reason = ""
    for _ in range(TRIES):
        try:
            status = httpx2.post(url, json=record, timeout=ANSWER_S, follow_redirects=False).status_code
        except (httpx2.HTTPError, httpx2.InvalidURL, ValueError) as error:
            reason = type(error).__name__
            continue
        if status < 300:
            logger().info("notice_sent", host=host)
            return
        reason = f"status {status}"
        if status < 500:
            break
    logger().warning("no_notice", host=host, reason=reason)
