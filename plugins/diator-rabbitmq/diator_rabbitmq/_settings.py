"""Addresses: one or several servers, a virtual host, and settings of the broker."""

import re
import ssl
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import SplitResult, quote, unquote, urlsplit

from diator.brokers.address import Parse, bad_address, read_address
from diator.errors import ConfigurationError

EXAMPLE = "amqp://user:password@localhost:5672/vhost"
_HOST = re.compile(r"[\w.-]+|\[[0-9A-Fa-f:.%]+\]")


class Servers(NamedTuple):
    """The addresses of the servers of one cluster, for the client."""

    urls: tuple[str, ...]
    shown: str
    """The first of them, without secrets."""
    is_secure: bool


def split(url: str, settings: Mapping[str, Parse]) -> tuple[str, dict[str, Any]]:
    """Return an address without the settings in its query, and these. Raises `~diator.ConfigurationError`."""
    address = read_address(_with_first_host(url), settings, EXAMPLE)
    return url.partition("?")[0], dict(address.settings)


def servers_of(url: str, heartbeat: int) -> Servers:
    """Read an address without settings. Raises `~diator.ConfigurationError`."""
    scheme, user, hosts, path = _parts(url)
    urls: list[str] = []
    for host in hosts:
        address = read_address(f"{scheme}://{user}{host}{path}", {}, EXAMPLE)
        parts = address.parts
        if parts.scheme not in ("amqp", "amqps"):
            raise address.error("has a scheme that is neither amqp nor amqps", f"write {EXAMPLE}")
        if not parts.hostname or not _HOST.fullmatch(host.rpartition(":")[0] if parts.port else host):
            raise address.error("has no host, or a host with invalid characters", f"write {EXAMPLE}")
        if parts.path.count("/") > 1:
            raise address.error("has a virtual host with a /", "write %2F for a / in the name of a virtual host")
        if len(unquote(parts.path)) > _LONGEST_VHOST:
            raise address.error("has a virtual host that is too long", f"use one of up to {_LONGEST_VHOST} characters")
        urls.append(_for_client(parts, user, heartbeat))
    first = urlsplit(f"//{hosts[0]}")
    return Servers(tuple(urls), f"{first.hostname}:{first.port or _PORTS[scheme]}", scheme == "amqps")


_LONGEST_VHOST = 127
_PORTS = {"amqp": 5672, "amqps": 5671}


def _for_client(parts: SplitResult, user: str, heartbeat: int) -> str:
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    vhost = quote(unquote(parts.path[1:]), safe="") if len(parts.path) > 1 else "%2F"
    query = f"heartbeat={heartbeat}&name=diator"
    return f"{parts.scheme}://{user}{host}:{parts.port or _PORTS[parts.scheme]}/{vhost}?{query}"


def _parts(url: str) -> tuple[str, str, list[str], str]:
    """Take an address apart whose hosts may be several, with commas between them."""
    scheme, colon, rest = url.partition("://")
    netloc, slash, path = rest.partition("/")
    user, at, hosts = netloc.rpartition("@")
    if not colon:
        raise bad_address("the broker's address has no // after its scheme", f"write {EXAMPLE}")
    return scheme.lower(), user + at, hosts.split(","), slash + path


def _with_first_host(url: str) -> str:
    bare, mark, query = url.partition("?")
    scheme, user, hosts, path = _parts(bare)
    return f"{scheme}://{user}{hosts[0]}{path}{mark}{query}"


def tls_of(servers: Servers, ca: str | None, certificate: str | None, key: str | None) -> ssl.SSLContext | None:
    """Return the settings of TLS for an address. Raises `~diator.ConfigurationError` for files that can't be used."""
    if not servers.is_secure:
        if ca or certificate or key:
            raise bad_address("files for TLS are given for an amqp address", "write amqps:// for TLS")
        return None
    try:
        context = ssl.create_default_context(cafile=ca)
        if certificate:
            context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        names = ", ".join(repr(one) for one in (ca, certificate, key) if one)
        raise _bad_files(names, error) from error
    return context


def _bad_files(names: str, error: Exception) -> ConfigurationError:
    why = getattr(error, "strerror", None) or str(error)
    return bad_address(f"the files for TLS, {names}, can't be used: {why}", "give the paths of PEM files")
