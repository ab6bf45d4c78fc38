"""What a link's source and target say."""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

from servicebus_test_server.amqp.values import Described, Symbol, Value
from servicebus_test_server.errors import NOT_ALLOWED, RefusalError

SESSION_FILTER = "com.microsoft:session-filter"
CBS = "$cbs"
MANAGEMENT = "/$management"

_FILTER = 7  # the position in a source (part 3, section 3.5.3)


def path_of(terminus: Value) -> str:
    """Read the address of a source or target, without scheme, host and outer slashes.

    Raises:
        RefusalError: There is no address.
    """
    fields = _fields(terminus)
    address = fields[0] if fields else None
    if not isinstance(address, str):
        raise RefusalError(NOT_ALLOWED, f"a link needs an address, not {address!r}")
    return path_of_address(address)


def path_of_address(address: str) -> str:
    """Take scheme, host and outer slashes off an address."""
    try:
        path = urlsplit(address).path if "://" in address else address
    except ValueError as cause:
        raise RefusalError(NOT_ALLOWED, f"{address!r} is no address") from cause
    return unquote(path).strip("/")


def session_filter(source: Value) -> tuple[bool, str | None]:
    """Read whether a receiver asks for a session, and for which; None is the next one that is free."""
    for name, value in _filters(source).items():
        if name == SESSION_FILTER:
            plain = value.value if isinstance(value, Described) else value
            return True, plain if isinstance(plain, str) else None
    return False, None


def replace_filter(source: Value, name: str, value: str) -> Value:
    """Make a copy of a source with another value of a filter."""
    if not isinstance(source, Described):
        return source
    fields = list(_fields(source))
    fields[_FILTER] = {**_filters(source), Symbol(name): value}
    return Described(source.descriptor, fields)


def _fields(terminus: Value) -> list[Value]:
    if isinstance(terminus, Described) and isinstance(terminus.value, list):
        return terminus.value
    return []


def _filters(source: Value) -> dict[Value, Value]:
    fields = _fields(source)
    filters = fields[_FILTER] if len(fields) > _FILTER else None
    return filters if isinstance(filters, dict) else {}
