"""Addresses of brokers: their common rules, so that each plugin rejects the same mistakes.

Errors never show parts that may belong to a password. If an address is not read as it was meant, for example because
its password contains a ``#``, parts of the password may be anywhere.
"""

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple
from urllib.parse import SplitResult, parse_qsl, urlsplit

from diator.errors import ConfigurationError, Problem
from diator.options import is_readable

_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
_PLAIN_NAME = re.compile(r"\w{1,40}", re.ASCII)
_ENCODE = "a user or password with / # ? @ or : is percent-encoded, such as %23 for #"

# Any: what is read is of the type that the option has.
Parse = Callable[[str], Any]
"""Parses a setting, or raises `ValueError`."""


class Address(NamedTuple):
    """A parsed address."""

    parts: SplitResult
    settings: Mapping[str, Any]
    """The settings of the broker, parsed."""
    rest: Mapping[str, str]
    """Settings that the broker does not know, for a library."""

    def error(self, what: str, expected: str) -> ConfigurationError:
        """Return the error for an invalid address. Its text does not show the address."""
        return bad_address(f"the broker's address {what}", expected)


def bad_address(text: str, expected: str) -> ConfigurationError:
    """Return the error for an address."""
    return ConfigurationError([Problem("broker-url", text, expected)])


def read_address(url: str, settings: Mapping[str, Parse], example: str, *, leave_rest: bool = False) -> Address:
    """Parse an address and the settings in its query. ``example`` is a valid address for errors.

    Raises `ConfigurationError` for white space, an unknown, repeated or invalid setting, a fragment, an invalid port,
    and an unexpected ``@``.
    """
    write = f"write {example}"
    if not is_readable(url) or any(letter.isspace() for letter in url):
        raise bad_address("the broker's address holds white space or a control character", write)
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        text = (
            "the broker's address has a port that is not a number from 1 to 65535, or brackets without an IPv6 address"
        )
        raise bad_address(text, f"{write}; {_ENCODE}") from None
    if parts.fragment or url.endswith("#") or "@" in f"{parts.path}{parts.query}":
        raise bad_address("the broker's address has a # or an @ in a wrong position", f"{write}; {_ENCODE}")
    if port == 0 or parts.netloc.endswith(":"):
        raise bad_address("the broker's address has no port after its colon, or port 0", write)
    if not url.lower().startswith(f"{parts.scheme}://"):
        raise bad_address("the broker's address has no // after its scheme", write)
    found, rest = _settings(parts.query, settings, write, leave_rest)
    return Address(parts, found, rest)


def _settings(
    query: str, known: Mapping[str, Parse], write: str, leave_rest: bool
) -> tuple[dict[str, Any], dict[str, str]]:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query), errors="strict")
    except ValueError:  # of which a UnicodeDecodeError is one
        text = "the broker's address has settings that can't be read"
        raise bad_address(text, f"{write}; settings are name=value, with & between them") from None
    found: dict[str, Any] = {}
    rest: dict[str, str] = {}
    for name, text in pairs:
        if name in found or name in rest:
            raise bad_address(f"the broker's address has the setting {_named(name)} more than once", "keep one of them")
        if name in known:
            found[name] = _read(name, text, known[name])
        elif leave_rest:
            rest[name] = text
        else:
            raise unknown_setting(name, known, write)
    return found, rest


def _read(name: str, text: str, read: Parse) -> Any:
    try:
        return read(text)
    except ValueError as error:
        raise bad_address(f"the broker's address has {name}={text!r}, which is {error}", f"correct {name}") from None


def unknown_setting(name: str, known: Collection[str], write: str) -> ConfigurationError:
    """Return the error for a setting of an address that is not one of ``known``. ``write`` is what to write instead."""
    from difflib import get_close_matches  # noqa: PLC0415 - needed for an error only

    close = get_close_matches(name, known, n=1)
    fix = f"did you mean {close[0]!r}?" if close else f"{write}; settings are: {', '.join(sorted(known))}"
    return bad_address(f"the broker's address has an unknown setting {_named(name)}", fix)


def _named(name: str) -> str:
    return repr(name) if _PLAIN_NAME.fullmatch(name) else "whose name is not shown"


def a_number(text: str) -> float:
    """Parse a number: digits, optionally with a point and an exponent."""
    if not _NUMBER.fullmatch(text):
        raise ValueError("not a number")
    return float(text)


def a_whole_number(text: str) -> int:
    """Parse a whole number."""
    if not re.fullmatch(r"[+-]?\d{1,18}", text, re.ASCII):
        raise ValueError("not a whole number")
    return int(text)


def a_flag(text: str) -> bool:
    """Parse ``true`` or ``false``."""
    if text.lower() not in ("true", "false"):
        raise ValueError("not true or false")
    return text.lower() == "true"


def or_none(read: Parse) -> Parse:
    """Return a parser that also accepts ``none``."""
    return lambda text: None if text.lower() == "none" else read(text)
