"""Log set-up: text on a terminal, JSON everywhere else, with the ids of the request at hand.

Called once by the composition root. Loggers are the standard library's, one per module. A line that
is written while a request is served carries its `request_id` and `trace_id` through context
variables; gRPC runs each call in a task of its own, so they are set and never need a reset.
"""

from __future__ import annotations

import contextvars
import json
import logging
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, TextIO

from leptond.telemetry.fields import Fields, escape_controls
from leptond.telemetry.options import LogOptions

__all__ = ["bind_request", "set_log_level", "setup_logging"]

_request_id: contextvars.ContextVar[str | None] = contextvars.ContextVar("request_id", default=None)
_trace_id: contextvars.ContextVar[str | None] = contextvars.ContextVar("trace_id", default=None)

_LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
# Loggers of libraries that tell every connection at INFO or DEBUG.
_CHATTY: Final = ("asyncio", "requests", "urllib3")
# systemd reads `<N>` at the start of a line as its syslog priority (sd-daemon(3)).
_PRIORITIES: Final = ((logging.ERROR, "<3>"), (logging.WARNING, "<4>"), (logging.INFO, "<6>"))
_EXPORTER_INTERVAL_S: Final = 60.0


def bind_request(request_id: str, trace_id: str | None) -> None:
    """Put the ids of the call on every line that the current task logs from here on."""
    _request_id.set(request_id)
    _trace_id.set(trace_id)


def set_log_level(level: str) -> None:
    """Change the level of the running daemon: `debug`, `info`, `warning` or `error`."""
    number = _LEVELS[level]
    logging.getLogger().setLevel(number)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(max(number, logging.WARNING))


def setup_logging(
    options: LogOptions, *, stream: TextIO | None = None, is_journal: bool = False
) -> None:
    """Send every logger's lines to `stream` (stderr) in the format that `options` asks for.

    Replaces the handlers of the root logger; warnings of Python become log lines.

    Args:
        options: format and level.
        stream: where lines go; stderr when None.
        is_journal: whether `stream` ends in the systemd journal (`HostEnvironment.is_journal`):
            each line then starts with its priority.
    """
    stream = stream or sys.stderr
    is_text = options.format == "text" or (
        options.format == "auto" and not is_journal and stream.isatty()
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter((TextFormatter if is_text else JsonFormatter)(has_priority=is_journal))
    handler.addFilter(ExporterFilter())
    logging.captureWarnings(capture=True)
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    set_log_level(options.level)


class ExporterFilter(logging.Filter):
    """Let each logger of OpenTelemetry speak once a minute: a dead collector fails every batch."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._last: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Say whether the record may pass."""
        if not record.name.startswith("opentelemetry."):
            return True
        now = self._clock()
        if now - self._last.get(record.name, -_EXPORTER_INTERVAL_S) < _EXPORTER_INTERVAL_S:
            return False
        self._last[record.name] = now
        return True


class _Formatter(logging.Formatter):
    """What both formats share: time, priority and the ids of the request."""

    def __init__(self, *, has_priority: bool = False) -> None:
        super().__init__()
        self._has_priority = has_priority

    def format(self, record: logging.LogRecord) -> str:
        """Return the line or, for text with a traceback, the lines."""
        line = self._render(record)
        return f"{_priority(record.levelno)}{line}" if self._has_priority else line

    def _render(self, record: logging.LogRecord) -> str:
        raise NotImplementedError

    def _traceback(self, record: logging.LogRecord) -> str:
        parts = []
        if record.exc_info:
            parts.append(self.formatException(record.exc_info))
        if record.stack_info:
            parts.append(self.formatStack(record.stack_info))
        return "\n".join(parts)


class TextFormatter(_Formatter):
    """`2026-11-25T02:17:00.123Z INFO leptond.server: request method=... request_id=...`."""

    def _render(self, record: logging.LogRecord) -> str:
        message = escape_controls(record.getMessage())
        ids = Fields(**_context_ids(_fields_of(record)))
        head = f"{_timestamp(record)} {record.levelname} {record.name}: {message} {ids}".rstrip()
        # Indented, so that no text inside an exception can pass for a line of its own.
        lines = self._traceback(record).splitlines()
        return "\n".join([head, *(f"    | {escape_controls(line)}" for line in lines)])


class JsonFormatter(_Formatter):
    """One JSON object per line, ASCII only. `Fields` become members; `message` stays constant."""

    def _render(self, record: logging.LogRecord) -> str:
        fields = _fields_of(record)
        entry: dict[str, object] = {
            "time": _timestamp(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": str(record.msg).removesuffix(" %s") if fields else record.getMessage(),
        }
        entry.update(_context_ids(fields))
        entry.update(fields or ())
        if traceback := self._traceback(record):
            entry["traceback"] = traceback
        return json.dumps(entry)


def _fields_of(record: logging.LogRecord) -> Fields | None:
    args = record.args
    if isinstance(args, tuple) and len(args) == 1 and isinstance(args[0], Fields):
        return args[0]
    return None


def _context_ids(fields: Fields | None) -> dict[str, str]:
    ids = {"request_id": _request_id.get(), "trace_id": _trace_id.get()}
    return {
        key: value
        for key, value in ids.items()
        if value is not None and (fields is None or key not in fields)
    }


def _timestamp(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _priority(level: int) -> str:
    return next((prefix for floor, prefix in _PRIORITIES if level >= floor), "<7>")
