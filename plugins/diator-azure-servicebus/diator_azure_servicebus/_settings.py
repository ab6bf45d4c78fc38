"""Settings: what can be said of the broker, in code or in the query of its address."""

import re
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, get_args

from diator.brokers.address import Parse, a_flag, a_number, a_whole_number, bad_address, read_address
from diator.errors import Problem
from diator.options import COUNT, FLAG, POSITIVE, SECONDS, TEXT, Rule, is_count, one_of, option_problems

SCHEME = "azure-servicebus"
Layout = Literal["topics", "queues"]
MAX_LOCK = 300.0
"""Seconds: the service locks a message for five minutes at most (Service Bus quotas)."""


class Variable(NamedTuple):
    """The environment variable that holds the connection string. It is read when the broker is opened."""

    name: str


class Settings(NamedTuple):
    """How the broker uses a namespace. `~diator_azure_servicebus.ServiceBusBroker` says what each one means."""

    layout: Layout = "topics"
    prefix: str = ""
    lease: float = 60.0
    sessions: bool = True
    max_sessions: int = 16
    max_session_hold: float = 600.0
    duplicate_window: float = 0.0
    max_message_bytes: int = 262_144
    manage: bool = True

    def problems(self) -> list[Problem]:
        """Find values that make no sense."""
        return option_problems("ServiceBusBroker", _OPTIONS, self._asdict(), "broker")


def _is_lock(value: Any) -> bool:
    return POSITIVE.fits(value) and bool(value <= MAX_LOCK)


def _is_size(value: Any) -> bool:
    return is_count(value) and bool(value >= 65_536)


_OPTIONS = {
    "layout": one_of(*get_args(Layout)),
    "prefix": TEXT,
    "lease": Rule(
        _is_lock,
        f"a number of seconds greater than 0 and at most {MAX_LOCK:g}",
    ),
    "sessions": FLAG,
    "max_sessions": COUNT,
    "max_session_hold": SECONDS,
    "duplicate_window": SECONDS,
    "max_message_bytes": Rule(_is_size, "a whole number from 65,536 up"),
    "manage": FLAG,
}


_VARIABLE = "connection_string_env"
_PARSERS: Mapping[type, Parse] = {str: str, float: a_number, bool: a_flag, int: a_whole_number}
_READ = {name: _PARSERS[type(default)] for name, default in Settings._field_defaults.items()} | {_VARIABLE: str}
_FORMS = f"{SCHEME}://my-namespace, or {SCHEME}://?{_VARIABLE}=NAME for a connection string in the environment"


def read_url(url: str) -> tuple[str | Variable, dict[str, Any]]:
    """Return the namespace of an address, or where the connection string is, and the settings in its query.

    Raises `~diator.ConfigurationError`.
    """
    address = read_address(url, _READ, _FORMS)
    parts, settings = address.parts, dict(address.settings)
    variable = settings.pop(_VARIABLE, None)
    if parts.scheme != SCHEME or parts.path.strip("/") or not re.fullmatch(r"[\w.-]*", parts.netloc, re.ASCII):
        raise address.error("has more than the name of a namespace and settings", f"write {_FORMS}")
    if bool(parts.netloc) == (variable is not None):
        raise address.error(f"must have either a namespace or {_VARIABLE}", f"write {_FORMS}")
    return parts.netloc or _variable(str(variable)), settings


def _variable(name: str) -> Variable:
    if not re.fullmatch(r"\w+", name):  # it may be the connection string itself, which is not to be shown
        text = f"the broker's address has a {_VARIABLE} that is not the name of an environment variable"
        raise bad_address(text, f"write {_FORMS}")
    return Variable(name)
