"""Logs to stderr through structlog, with the run id and without secrets.

Lines of the standard library's `logging` (MCP SDK, transformers) are formatted the same way. structlog is
imported with the first line, since it imports rich, which takes a tenth of the server's start time.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Generator
from contextlib import contextmanager
from functools import cached_property
from textwrap import indent
from typing import TYPE_CHECKING

from .config.settings import Settings
from .redact import scrub
from .untrusted import one_line, sanitized

if TYPE_CHECKING:
    from structlog.stdlib import BoundLogger, ProcessorFormatter
    from structlog.typing import EventDict, Processor, WrappedLogger


LONGEST_VALUE = 4_000  # characters


def configure_logging(settings: Settings, *, own_process: bool = True) -> None:
    """Send every log line of this process to stderr (and to `log_file`), as text or as JSON.

    Args:
        own_process: False in a caller's program, whose logging configuration is not changed.
    """
    if not own_process and _is_configured():
        return
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    if settings.log_file:
        handlers.append(logging.FileHandler(settings.log_file, encoding="utf-8", delay=True))
    for handler in handlers:
        handler.setFormatter(_Formatter(settings.log_json))
    logging.basicConfig(level=settings.log_level, handlers=handlers, force=own_process)
    logging.getLogger("httpx2").setLevel(logging.WARNING)  # below, it logs whole addresses
    for note in settings.notes:
        logging.getLogger("backpropagate").warning(note)


def logger() -> BoundLogger:
    """The logger of this package."""
    import structlog

    if not _is_configured():
        structlog.configure(
            processors=[
                structlog.stdlib.filter_by_level,
                *_shared(),
                structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
            ],
            wrapper_class=structlog.stdlib.BoundLogger,
            logger_factory=structlog.stdlib.LoggerFactory(),
        )
    return structlog.get_logger("backpropagate")


@contextmanager
def lines_of_run(run_id: str) -> Generator[None]:
    """Let each line of this thread have the run's id, those of libraries too."""
    import structlog

    with structlog.contextvars.bound_contextvars(run_id=run_id):
        yield


def _is_configured() -> bool:
    """Whether structlog is configured, by this package or by the caller's program."""
    import structlog

    return structlog.is_configured()


class _Formatter(logging.Formatter):
    def __init__(self, as_json: bool) -> None:
        super().__init__()
        self._as_json = as_json

    def format(self, record: logging.LogRecord) -> str:
        return self._structured.format(record)

    @cached_property
    def _structured(self) -> ProcessorFormatter:
        import structlog

        return structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_shared(),
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                _scrub_event,
                structlog.processors.JSONRenderer() if self._as_json else _plain_renderer(),
            ],
        )


def _shared() -> list[Processor]:
    import structlog

    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]


def _plain_renderer() -> Processor:
    import structlog

    return structlog.dev.ConsoleRenderer(
        colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
    )


def _scrub_event(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    return {key: _shown(key, value) if isinstance(value, str) else value for key, value in event.items()}


def _shown(key: str, text: str) -> str:
    """The text without secrets; no line of it can pass for a line of the log."""
    if key == "exception":
        return indent(sanitized(scrub(text)), "  ")
    return one_line(scrub(text), LONGEST_VALUE)
