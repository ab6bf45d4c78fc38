"""How the plugin for a broker is found: by the scheme of its address.

A plugin registers an entry point in the group ``diator.brokers``. Its name is a scheme (``redis``), its object is
called with the whole address and returns a `Broker`. Only the plugin that is needed gets imported.
"""

from collections.abc import Callable
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
}
"""Schemes of plugins of ours, and the extra that installs each."""

_WRITE = "give an address such as 'memory://' or 'redis://localhost:6379', or a broker object"


def find_broker(given: object) -> Broker:
    """Give the port for what the user passed: a plugin's object as it is, or an address.

    Raises `ConfigurationError` where no installed plugin serves the scheme, or what it makes is no `Broker`.
    """
    if isinstance(given, type):
        text = f"broker={given!r} is a class, where an object was expected"
        raise ConfigurationError(
            [Problem("broker-plugin", text, f"pass an instance, broker={given.__qualname__}(...)")]
        )
    if isinstance(given, str):
        return _by_address(given)
    if isinstance(given, Broker):
        return given
    missing = _missing(given)
    lacks = f": it lacks {', '.join(missing)}" if len(missing) < _MANY else ""
    text = f"broker={given!r} is no broker{lacks}"
    remedy = "pass an address, such as 'redis://localhost:6379', or an object that implements diator.brokers.Broker"
    raise ConfigurationError([Problem("broker-plugin", text, remedy)])


_MANY = 8
"""Who lacks so many methods was not meant to be a broker."""


def _missing(given: object) -> list[str]:
    return [name for name in sorted(vars(Broker)) if not name.startswith("_") and not hasattr(given, name)]


def _by_address(address: str) -> Broker:
    try:
        scheme = urlsplit(address).scheme
    except ValueError as error:
        text = f"the address of the broker can't be read: {error}"  # which may hold a password
        raise ConfigurationError([Problem("broker-plugin", text, _WRITE)]) from error
    if scheme == "memory":
        return MemoryBroker.from_url(address)
    installed = {point.name: point for point in entry_points(group=GROUP)}
    if scheme in installed:
        return _load(installed[scheme], address)
    raise ConfigurationError([_no_plugin(scheme, address, sorted(installed))])


def _load(point: EntryPoint, address: str) -> Broker:
    make: Callable[[str], object] = point.load()
    made = make(address)
    if isinstance(made, Broker):
        return made
    missing = _missing(made)
    text = f"the broker plugin {point.value!r} gave a {type(made).__name__}, which lacks {', '.join(missing)}"
    remedy = f"upgrade the distribution of {point.value.partition(':')[0]!r}, or report this to its authors"
    raise ConfigurationError([Problem("broker-plugin", text, remedy)])


def _no_plugin(scheme: str, address: str, installed: list[str]) -> Problem:
    there = ", ".join(["memory", *installed])
    text = f"no broker plugin for {scheme!r}" if scheme else f"broker={address!r} has no scheme"
    text = f"{text}; there are plugins for: {there}"
    if scheme in KNOWN:
        return Problem("broker-plugin", text, f'install it: pip install "diator[{KNOWN[scheme]}]"')
    return Problem("broker-plugin", text, _WRITE)
