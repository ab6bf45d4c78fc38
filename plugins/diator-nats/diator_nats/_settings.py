"""Addresses, and what they say to nats-py."""

import contextlib
import re
import ssl
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import SplitResult, unquote

from nats.aio.client import RawCredentials

from diator.brokers.address import Address, Parse, bad_address, read_address
from diator.errors import BrokerError

EXAMPLE = "nats://localhost:4222"
_PORT = 4222


class Server(NamedTuple):
    """Servers of one system, and who connects to them."""

    hosts: tuple[str, ...]
    """Each as ``host:port``."""
    user: str | None
    password: str | None
    has_tls: bool

    def __repr__(self) -> str:
        return f"<Server {','.join(self.hosts)}>"


def split(url: str, settings: Mapping[str, Parse]) -> tuple[str, dict[str, Any]]:
    """Return an address without its settings, and these. Raises `~diator.ConfigurationError`."""
    first, _ = _read(url, settings)
    return url.partition("?")[0], dict(first.settings)


def servers_of(url: str) -> Server:
    """Take an address apart. Raises `~diator.ConfigurationError`."""
    first, addresses = _read(url, {})
    parts = [address.parts for address in addresses]
    given = next((one for one in parts if one.username is not None), first.parts)
    user = None if given.username is None else unquote(given.username)
    password = None if given.password is None else unquote(given.password)
    return Server(tuple(map(_host, parts)), user, password, first.parts.scheme == "tls")


def _host(parts: SplitResult) -> str:
    name = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{name}:{parts.port or _PORT}"


def _read(url: str, settings: Mapping[str, Parse]) -> tuple[Address, list[Address]]:
    """Read each of the servers that an address names, with commas between them."""
    head, mark, query = url.partition("?")
    scheme = head.partition("://")[0]
    hosts = head.split(",")
    if "," in query.partition("://")[0] and "://" in query:
        raise bad_address(
            "the broker's address names a server after its settings", f"write {EXAMPLE},nats://other?lease=60"
        )
    first = read_address(f"{hosts[0]}{mark}{query}", settings, EXAMPLE)
    rest = [read_address(host if "://" in host else f"{scheme}://{host}", {}, EXAMPLE) for host in hosts[1:]]
    for address in (first, *rest):
        if not address.parts.hostname or address.parts.path.strip("/"):
            raise address.error("has no host, or a path", f"write {EXAMPLE}, or several with commas between them")
        if address.parts.scheme not in ("nats", "tls"):
            raise address.error("has another scheme than nats:// and tls://", f"write {EXAMPLE}")
    return first, [first, *rest]


# Any: options of nats-py.
def options_of(server: Server, tls_ca: str | None, credentials: str | None) -> dict[str, Any]:
    """Return what nats-py needs to connect. Raises `~diator.BrokerError` for files that can't be used."""
    scheme = "tls" if server.has_tls or tls_ca else "nats"
    options: dict[str, Any] = {"servers": [f"{scheme}://{host}" for host in server.hosts]}
    if server.password is not None:
        options |= {"user": server.user, "password": server.password}
    elif server.user is not None:
        options["token"] = server.user
    try:
        if scheme == "tls":
            options["tls"] = ssl.create_default_context(cafile=tls_ca)
        if credentials is not None:
            options["user_credentials"] = _credentials_of(credentials)
    except OSError as error:
        files = {"tls_ca": tls_ca, "credentials": credentials}
        named = ", ".join(f"{name}={file!r}" for name, file in files.items() if file is not None)
        raise BrokerError(f"{named}: a file can't be read: {error}; correct its path or its contents") from error
    return options


def _credentials_of(file: str) -> RawCredentials:
    """Read a ``.creds`` file. Raises `~diator.BrokerError`: nats-py would look for a missing part forever."""
    try:
        nkeys: Any = import_module("nkeys")  # has no types
    except ImportError as error:
        raise BrokerError(f"credentials={file!r} needs the package nkeys; install it: uv add nkeys") from error
    text = Path(file).read_bytes().decode(errors="replace").replace("\r\n", "\n")
    seed = re.search(r"BEGIN USER NKEY SEED-*\n(\S+)\n", text)
    with contextlib.suppress(Exception):  # of many classes, and all say that the seed is wrong
        if seed is not None and re.search(r"BEGIN NATS USER JWT-*\n\S+\n", text):
            nkeys.from_seed(bytearray(seed[1].encode()))
            return RawCredentials(text)
    expected = "expected a .creds file with a user's JWT and seed, as nsc generates it"
    raise BrokerError(f"credentials={file!r} is invalid: {expected}; generate it: nsc generate creds")
