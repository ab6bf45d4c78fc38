"""The logs of ``diator run``: readable lines, or one JSON object for each."""

import enum
import json
import logging
import sys
import threading
from datetime import datetime, timezone
from typing import Any

_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
"""What every record has; all else is an extra."""
_KEYS = frozenset({"time", "level", "logger", "message", "exception", "stack"})


_DRIVERS = ("azure", "msal", "redis")
"""Loggers of the libraries that plugins for brokers bring. At INFO some tell each step of each connection."""


class Level(str, enum.Enum):
    """How much is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"
    CRITICAL = "critical"


def set_up(level: Level, *, as_json: bool) -> None:
    """Log to stderr, warnings and what threads raise included; drivers of brokers from WARNING up, unless debugging."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        JsonLines() if as_json else logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    )
    logging.basicConfig(handlers=[handler], level=level.value.upper(), force=True)
    if level is Level.INFO:
        for name in _DRIVERS:
            logging.getLogger(name).setLevel(logging.WARNING)
    logging.captureWarnings(True)
    threading.excepthook = _log_of_thread


def _log_of_thread(raised: threading.ExceptHookArgs) -> None:
    if raised.exc_value is not None and not isinstance(raised.exc_value, SystemExit):
        name = raised.thread.name if raised.thread else "?"
        logging.getLogger("diator").error("the thread %s has failed", name, exc_info=raised.exc_value)


class JsonLines(logging.Formatter):
    """Writes a record as one JSON object: time, level, logger, message, exception, and its extras."""

    def format(self, record: logging.LogRecord) -> str:
        """Write a record with any content."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _message(record),
        }
        if record.exc_info and record.exc_info[0] is not None:
            line["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            line["stack"] = self.formatStack(record.stack_info)
        extras = {name: value for name, value in vars(record).items() if name not in _OWN}
        return _dumped(
            {**{f"{name}_" if name in _KEYS else name: value for name, value in extras.items()}, **line}, line
        )


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # noqa: BLE001 - a mistake in a log call must not cost the line
        return f"{record.msg} {record.args!r}"


def _dumped(line: dict[str, Any], always: dict[str, Any]) -> str:
    ordered = {**always, **line}
    try:
        return json.dumps(ordered, default=repr, allow_nan=False)
    except (TypeError, ValueError, RecursionError):  # keys that are no texts, no numbers, circles
        return json.dumps({name: value if name in always else repr(value) for name, value in ordered.items()})
