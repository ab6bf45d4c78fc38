"""Settings: what can be said of the broker, in code or in the query of its address."""

import re
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, get_args
from urllib.parse import parse_qsl, urlsplit

from diator.errors import ConfigurationError, Problem

SCHEME = "azure-servicebus"
Layout = Literal["topics", "queues"]
LONGEST_LOCK = 300.0
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
    max_hold: float = 600.0
    duplicate_window: float = 0.0
    max_message_bytes: int = 262_144
    manage: bool = True

    def problems(self) -> list[Problem]:
        """Find values that make no sense."""
        checks = (
            ("layout", self.layout in get_args(Layout), "'topics' or 'queues'"),
            ("lease", 0 < self.lease <= LONGEST_LOCK, f"seconds above 0, and at most {LONGEST_LOCK:g}"),
            ("max_sessions", self.max_sessions >= 1, "1 or more"),
            ("max_hold", self.max_hold >= 0, "0 or more seconds"),
            ("duplicate_window", self.duplicate_window >= 0, "0 or more seconds"),
            ("max_message_bytes", self.max_message_bytes >= 65_536, "65,536 or more"),
        )
        return [
            Problem("broker", f"the broker has {name}={getattr(self, name)!r}", f"give {allowed}")
            for name, fits, allowed in checks
            if not fits
        ]


def _yes_or_no(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError(text)
    return text.lower() == "true"


_READ: Mapping[str, Callable[[str], Any]] = {
    "layout": str,
    "prefix": str,
    "lease": float,
    "sessions": _yes_or_no,
    "max_sessions": int,
    "max_hold": float,
    "duplicate_window": float,
    "max_message_bytes": int,
    "manage": _yes_or_no,
}
_VARIABLE = "connection_string_env"


def read_url(url: str) -> tuple[str | Variable, dict[str, Any]]:
    """Give the namespace of an address, or where the connection string is, and the settings in its query.

    Raises `~diator.ConfigurationError`.
    """
    parts = urlsplit(url)
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    query = dict(pairs)
    for name in query:
        if [one for one, _ in pairs].count(name) > 1:
            raise _bad(f"the broker's address has {name!r} more than once")
    variable = query.pop(_VARIABLE, None)
    if parts.scheme != SCHEME or parts.path.strip("/") or parts.fragment or parts.username or parts.password:
        raise _bad(f"{_shown(url)!r} is no address of a namespace: it has more than a name and settings")
    if bool(parts.netloc) == bool(variable):
        raise _bad(f"{_shown(url)!r} must have either a namespace or {_VARIABLE}")
    return parts.netloc or _variable(str(variable)), dict(_setting(*pair) for pair in query.items())


def _setting(name: str, text: str) -> tuple[str, Any]:
    if name not in _READ:
        raise _bad(f"the broker's address has an unknown setting {name!r}")
    try:
        return name, _READ[name](text)
    except ValueError:
        raise _bad(f"the broker's address has {name}={text!r}, which is no such value") from None


def _variable(name: str) -> Variable:
    if not re.fullmatch(r"\w+", name):  # it may be the connection string itself, which is not to be shown
        raise _bad(f"the broker's address has a {_VARIABLE} that is no name of an environment variable")
    return Variable(name)


def _shown(url: str) -> str:
    """Give an address without what may be a secret."""
    name = url.partition("?")[0]
    return f"{SCHEME}://..." if any(character in name for character in "@=;") else name


def _bad(text: str) -> ConfigurationError:
    forms = f"{SCHEME}://my-namespace, or {SCHEME}://?{_VARIABLE}=NAME for a connection string in the environment"
    return ConfigurationError([Problem("broker-url", text, f"write {forms}; settings are: {', '.join(_READ)}")])
