"""The address of the broker in memory, and the settings that may stand in it."""

from typing import Any

from diator.brokers.address import Parse, a_number, a_whole_number, bad_address, read_address
from diator.options import COUNT, POSITIVE, SECONDS, require

_SETTINGS: dict[str, Parse] = {"capacity": a_whole_number, "lease": a_number, "duplicate_window": a_number}
_OPTIONS = {"capacity": COUNT, "lease": POSITIVE, "duplicate_window": SECONDS}
_EXAMPLE = "memory://, or with any of these: memory://?capacity=10000&lease=30&duplicate_window=60"


# Any: what a setting is depends on its name.
def settings_of(url: str) -> dict[str, Any]:
    """Read an address such as ``memory://?capacity=1000&lease=5``. Raises `ConfigurationError`."""
    address = read_address(url, _SETTINGS, _EXAMPLE)
    if address.parts.scheme != "memory" or address.parts.netloc or address.parts.path.strip("/"):
        raise bad_address("the address of the broker in memory has a host or a path", f"write {_EXAMPLE}")
    return dict(address.settings)


def validate_settings(capacity: int, lease: float, duplicate_window: float) -> None:
    """Refuse numbers that no broker can have. Raises `ConfigurationError`."""
    given = {"capacity": capacity, "lease": lease, "duplicate_window": duplicate_window}
    require("MemoryBroker", _OPTIONS, given, "broker")
