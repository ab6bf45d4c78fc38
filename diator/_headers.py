"""Headers that a sender attaches: validated when they are passed, so that every receiver can read them."""

from collections.abc import Iterator, Mapping
from typing import Any, cast

from diator._locations import caller, location_in_frame
from diator.context import Headers
from diator.errors import ConfigurationError, Problem
from diator.options import is_readable

_MAX_CHARACTERS = 32_000
"""The sum over all headers. Azure Service Bus accepts 64 KiB of properties per message, including Diator's own."""


def sealed_headers(headers: Any, verb: str = "app.using") -> Mapping[str, str]:
    """Return an immutable copy of the headers. ``Any``: callers may be unchecked.

    ``verb`` is what the headers were passed to.

    Raises `ConfigurationError`, which shows no value: it may be a token.
    """
    problems = list(_wrong(headers))
    if problems:
        location = location_in_frame(caller())
        raise ConfigurationError([Problem("headers", f"{verb} got {text}", fix, location) for text, fix in problems])
    return Headers(dict(headers))


def _wrong(headers: Any) -> Iterator[tuple[str, str]]:
    if not isinstance(headers, Mapping):
        yield f"headers of the class {type(headers).__qualname__}", 'pass a mapping: headers={"X-Tenant": "acme"}'
        return
    pairs = cast("Mapping[object, object]", headers)
    for name, value in pairs.items():
        if not is_readable(name) or not name:
            text = f"headers with the name {name!r}"
            yield text, "use a string that is not empty, without control characters and lone surrogates"
        elif not isinstance(value, str):
            text = f"the header {name!r} with a value of the class {type(value).__qualname__}"
            yield text, "pass a string, since headers are sent with brokered events: str(value)"
        elif not is_readable(value):
            text = f"the header {name!r} with a control character or a lone surrogate in its value"
            yield text, "encode the value, for example with urllib.parse.quote"
    size = sum(len(part) for pair in pairs.items() for part in pair if isinstance(part, str))
    if size > _MAX_CHARACTERS:
        yield f"headers of {size:,} characters", f"pass at most {_MAX_CHARACTERS:,}, and put the rest into the message"
