"""The logs of ``diator run``: readable lines, or one JSON object for each."""

import enum
import json
import logging
import sys
import threading
from functools import partial
from typing import Any

from pythonjsonlogger.json import JsonFormatter

from diator.logs import ContextFilter

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


def set_up(level: Level, *, as_json: bool, handled: bool, worker: int | None = None) -> None:
    """Log to stderr, warnings and what threads raise included; drivers of brokers from WARNING up, unless debugging.

    ``handled`` says whether there is a line for each message that was handled, ``worker`` which of several this is.
    """
    handler = logging.StreamHandler(sys.stderr)
    which = "" if worker is None else f"[worker {worker}] "
    handler.setFormatter(
        JsonLines() if as_json else logging.Formatter(f"%(asctime)s %(levelname)s {which}%(name)s: %(message)s")
    )
    handler.addFilter(ContextFilter())
    if worker is not None:
        handler.addFilter(partial(_mark, worker))
    logging.basicConfig(handlers=[handler], level=level.value.upper(), force=True)
    if level is Level.INFO:
        for name in _DRIVERS:
            logging.getLogger(name).setLevel(logging.WARNING)
    if not handled:
        logging.getLogger("diator.handled").setLevel(logging.WARNING)
    logging.captureWarnings(True)
    threading.excepthook = _log_of_thread


def _mark(worker: int, record: logging.LogRecord) -> bool:
    record.diator_worker = worker
    return True


def _log_of_thread(raised: threading.ExceptHookArgs) -> None:
    if raised.exc_value is not None and not isinstance(raised.exc_value, SystemExit):
        name = raised.thread.name if raised.thread else "?"
        logging.getLogger("diator").error("the thread %s has failed", name, exc_info=raised.exc_value)


class JsonLines(JsonFormatter):
    """Writes a record as one JSON object: time, level, logger, message, exception, stack, and its extras."""

    def __init__(self) -> None:
        super().__init__(  # pyright: ignore[reportUnknownMemberType]  # the library leaves some parameters untyped
            "%(levelname)s %(name)s %(message)s",
            timestamp="time",
            rename_fields={"levelname": "level", "name": "logger", "exc_info": "exception", "stack_info": "stack"},
            json_serializer=partial(json.dumps, allow_nan=False),
        )

    def format(self, record: logging.LogRecord) -> str:
        """Write a record with any content; an extra that is called as a key gets a ``_`` behind its name."""
        fields = {f"{name}_" if name in _KEYS else name: value for name, value in vars(record).items()}
        shown = {"levelname": record.levelname.lower(), "msg": _message(record), "args": None}
        return super().format(logging.makeLogRecord({**fields, **shown}))

    def jsonify_log_record(self, log_data: dict[str, Any]) -> str:
        """Write values that JSON can't carry, such as numbers that are none, as Python shows them."""
        first = {name: log_data[name] for name in ("time", "level", "logger", "message")}
        try:
            return super().jsonify_log_record({**first, **log_data})
        except (TypeError, ValueError, RecursionError):
            shown = {name: value if name in _KEYS else repr(value) for name, value in log_data.items()}
            return super().jsonify_log_record({**first, **shown})


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # noqa: BLE001 - a mistake in a log call must not cost the line
        return f"{record.msg} {record.args!r}"
