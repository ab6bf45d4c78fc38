"""Hiding: what of a broker's address may stand in an error, which ends up in logs."""

import re

_CREDENTIALS = re.compile(r"(?<=://)\S*@")
_SECRET = re.compile(r"((?:password|passwd|pwd|secret|token|key|signature|sig)=)[^&;\s'\"]+", re.IGNORECASE)
_CONNECTION_STRING = re.compile(r"\bEndpoint\s*=|SharedAccess\w*\s*=", re.IGNORECASE)
_PLAIN = re.compile(r"[\w.:/+\[\]-]*")


def redact(text: str) -> str:
    """A text with stars for the user and the password of every address in it, and for what a query calls a secret."""
    return _SECRET.sub(r"\1***", _CREDENTIALS.sub("***@", text))


def is_plain(address: str) -> bool:
    """Whether a text has only what names, hosts, ports and paths have: nothing of it can be a key or a password."""
    return _PLAIN.fullmatch(address) is not None


def is_connection_string(address: str) -> bool:
    """Whether a text is what Azure calls so, which has a key in it."""
    return _CONNECTION_STRING.search(address) is not None
