"""The address of the broker in memory, and the settings that may stand in it."""

from typing import TypedDict
from urllib.parse import parse_qsl, urlsplit

from diator.brokers.hiding import shown
from diator.errors import ConfigurationError, Problem


class Settings(TypedDict, total=False):
    """What may be set, by the names that the constructor has for it."""

    capacity: int
    lease: float
    duplicate_window: float


def settings_of(url: str) -> Settings:
    """Read an address such as ``memory://?capacity=1000&lease=5``. Raises `ConfigurationError`."""
    parts = urlsplit(url)
    if parts.scheme != "memory" or parts.netloc or parts.path.strip("/") or parts.fragment:
        raise _not_an_address(url, "it has no host and no path")
    settings = Settings()
    for name, text in parse_qsl(parts.query, keep_blank_values=True):
        try:
            if name == "capacity":
                settings["capacity"] = int(text)
            elif name == "lease":
                settings["lease"] = float(text)
            elif name == "duplicate_window":
                settings["duplicate_window"] = float(text)
            else:
                raise _not_an_address(url, f"{name!r} is no parameter of it")
        except ValueError:
            raise _not_an_address(url, f"{name}={text!r} is no number of the right kind") from None
    return settings


def require_sensible(capacity: int, lease: float, duplicate_window: float) -> None:
    """Refuse numbers that no broker can have. Raises `ConfigurationError`."""
    wrong = [
        f"{name} is {value!r}, where {allowed} was expected"
        for name, value, fits, allowed in (
            ("capacity", capacity, capacity >= 1, "1 or more messages"),
            ("lease", lease, lease > 0, "more than 0 seconds"),
            ("duplicate_window", duplicate_window, duplicate_window >= 0, "0 or more seconds"),
        )
        if not fits
    ]
    if wrong:
        raise ConfigurationError([Problem("broker", text, "change it") for text in wrong])


def _not_an_address(url: str, why: str) -> ConfigurationError:
    text = f"{shown(url)!r} is no address of the broker in memory: {why}"
    remedy = "write memory://, or with any of these: memory://?capacity=10000&lease=30&duplicate_window=60"
    return ConfigurationError([Problem("broker", text, remedy)])
