"""How the plugin for a broker is found: by the scheme of its address.

A plugin registers an entry point in the group ``diator.brokers``. Its name is a scheme (``redis``); its object is
called with the whole address and returns a `Broker`. Only the plugin that is needed is imported.
"""

import re
from collections.abc import Callable, Iterable
from importlib.metadata import EntryPoint, entry_points
from urllib.parse import urlsplit

from diator.brokers.memory import MemoryBroker
from diator.brokers.port import Broker
from diator.errors import ConfigurationError, Problem

GROUP = "diator.brokers"

KNOWN = {
    "redis": "redis",
    "rediss": "redis",
    "unix": "redis",
    "redis+pubsub": "redis",
    "azure-servicebus": "azure",
    "nats": "nats",
    "tls": "nats",
    "amqp": "rabbitmq",
    "amqps": "rabbitmq",
}
"""Schemes of plugins of ours, and the extra that installs each."""

_MEANT = {
    "rabbit": "amqp",
    "rabbitmq": "amqp",
    "amqp+ssl": "amqps",
    "asb": "azure-servicebus",
    "azure": "azure-servicebus",
    "sb": "azure-servicebus",
    "servicebus": "azure-servicebus",
    "redis+ssl": "rediss",
    "redis+tls": "rediss",
}
"""What other programs call these schemes."""

_WRITE = "give an address such as 'memory://' or 'redis://localhost:6379', or a broker object"


# What of an address an error may show: it ends up in logs.

_CREDENTIALS = re.compile(r"(?<=://)\S*@")
_SECRET = re.compile(r"((?:password|passwd|pwd|secret|token|key|signature|sig)=)[^&;\s'\"]+", re.IGNORECASE)
_WITH_A_KEY = re.compile(r"\bEndpoint\s*=|SharedAccess\w*\s*=", re.IGNORECASE)
_PLAIN = re.compile(r"[\w.:/+\[\]-]*")


def find_broker(given: object) -> Broker:
    """Return the port for the user's broker: an object of a plugin unchanged, or the broker of an address.

    Raises `ConfigurationError` if no installed plugin serves the scheme, or if the plugin does not return a `Broker`.
    """
    if isinstance(given, type):
        text = f"broker={given!r} is a class; expected an object"
        raise ConfigurationError(
            [Problem("broker-plugin", text, f"pass an instance, broker={given.__qualname__}(...)")]
        )
    if isinstance(given, str):
        return _by_address(given)
    if isinstance(given, Broker):
        return given
    missing = _missing(given)
    lacks = f": it lacks {', '.join(missing)}" if len(missing) < _MANY else ""
    text = f"broker={_redact(repr(given))} is not a broker{lacks}"
    fix = "pass an address, such as 'redis://localhost:6379', or an object that implements diator.brokers.Broker"
    raise ConfigurationError([Problem("broker-plugin", text, fix)])


_MANY = 8
"""An object that lacks this many methods was not meant to be a broker."""


def _missing(given: object) -> list[str]:
    return [name for name in sorted(vars(Broker)) if not name.startswith("_") and not hasattr(given, name)]


def _by_address(address: str) -> Broker:
    if _WITH_A_KEY.search(address):
        raise ConfigurationError([Problem("broker-plugin", _CONNECTION_STRING, _INTO_A_VARIABLE)])
    try:
        scheme = urlsplit(address).scheme
    except ValueError as error:
        why = f": {error}" if "@" not in address else ""  # the error may hold a password, and must not be chained
        text = f"the address of the broker can't be read{why}"
        raise ConfigurationError([Problem("broker-plugin", text, _WRITE)]) from None
    if scheme == "memory":
        return MemoryBroker.from_url(address)
    installed = {point.name: point for point in entry_points(group=GROUP)}
    if scheme in installed:
        return _load(installed[scheme], address)
    raise ConfigurationError([_no_plugin(scheme, address, sorted(installed))])


_CONNECTION_STRING = "the broker's address looks like a connection string, which has a key in it, and is not shown here"
_INTO_A_VARIABLE = (
    "put it into an environment variable, and write broker='azure-servicebus://?connection_string_env=NAME'"
)


def _load(point: EntryPoint, address: str) -> Broker:
    make: Callable[[str], object] = point.load()
    made = make(address)
    if isinstance(made, Broker):
        return made
    missing = _missing(made)
    text = f"the broker plugin {point.value!r} returned a {type(made).__name__}, which lacks {', '.join(missing)}"
    fix = f"upgrade the distribution of {point.value.partition(':')[0]!r}, or report this to its authors"
    raise ConfigurationError([Problem("broker-plugin", text, fix)])


def _no_plugin(scheme: str, address: str, installed: list[str]) -> Problem:
    there = ["memory", *installed]
    scheme = scheme or address.partition("://")[0]  # which takes no underscores, as people do
    if "://" not in address or not _is_plain(scheme):
        named = f"broker={address!r}" if _is_plain(address) else "the broker's address"
        return Problem("broker-plugin", f"{named} has no scheme; there are plugins for: {', '.join(there)}", _WRITE)
    text = f"no broker plugin for {scheme!r}; there are plugins for: {', '.join(there)}"
    if scheme in KNOWN:
        return Problem("broker-plugin", text, _install(scheme))
    meant = _meant(scheme, there)
    if meant is None:
        return Problem("broker-plugin", text, _WRITE)
    then = "" if meant in there else f" Then {_install(meant)}"
    return Problem("broker-plugin", text, f"did you mean '{meant}://...'?{then}")


def _install(scheme: str) -> str:
    return f'install it: uv add "diator[{KNOWN[scheme]}]"'


def _meant(scheme: str, installed: Iterable[str]) -> str | None:
    from difflib import get_close_matches  # noqa: PLC0415 - needed for an error only

    close = get_close_matches(scheme, [*installed, *KNOWN], n=1)
    return _MEANT.get(scheme) or (close[0] if close else None)


def _redact(text: str) -> str:
    """A text with stars for the user and the password of every address in it, and for what a query calls a secret."""
    return _SECRET.sub(r"\1***", _CREDENTIALS.sub("***@", text))


def _is_plain(address: str) -> bool:
    """Whether a text has only what names, hosts, ports and paths have: nothing of it can be a key or a password."""
    return _PLAIN.fullmatch(address) is not None
