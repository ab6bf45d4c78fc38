"""Addresses: a plugin's own settings are taken off the query, the rest goes to redis-py."""

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from redis import exceptions as redis_errors
from redis.asyncio import ConnectionPool, Redis, RedisCluster

from diator.errors import ConfigurationError, Problem
from diator_redis._errors import NO_CLUSTER
from diator_redis._link import Links

UNLIMITED = 2**31
"""Connections in a pool of our own: two for each receiver, and one for what is published."""


def optional(read: Callable[[str], Any]) -> Callable[[str], Any]:
    """Read a value that may also be ``none``."""
    return lambda text: None if text.lower() == "none" else read(text)


def problem(text: str, remedy: str) -> ConfigurationError:
    """Say what is wrong with an address or a setting."""
    return ConfigurationError([Problem("broker-url", text, remedy)])


def split(url: str, settings: Mapping[str, Callable[[str], Any]]) -> tuple[str, dict[str, Any]]:
    """Give an address without the settings in its query, and these. Raises `~diator.ConfigurationError`."""
    parts = urlsplit(url)
    rest: list[tuple[str, str]] = []
    found: dict[str, Any] = {}
    for name, text in parse_qsl(parts.query, keep_blank_values=True):
        if name not in settings:
            rest.append((name, text))
            continue
        try:
            found[name] = settings[name](text)
        except ValueError as error:
            raise problem(
                f"the broker's address has {name}={text!r}, which is no such value",
                f"write {name}=<value> as documented",
            ) from error
    bare = urlunsplit((parts.scheme, parts.netloc, parts.path, urlencode(rest), parts.fragment))
    if parts.scheme == "unix" and not parts.netloc:
        bare = bare if bare.startswith("unix://") else f"unix://{bare.removeprefix('unix:')}"
    return bare, found


def pool_of(url: str, timeout: float, settings: Mapping[str, Any]) -> ConnectionPool:
    """Make the pool of connections for an address. Raises `~diator.ConfigurationError` for what is unknown."""
    known = ", ".join(sorted(settings))
    _check_port(url)
    # A Link has a timer of its own; what redis-py does for a timeout costs a task for each command on older Pythons.
    defaults: dict[str, Any] = {
        "socket_timeout": None,
        "socket_connect_timeout": timeout,
        "max_connections": UNLIMITED,
    }
    if not url.startswith("unix"):
        defaults["socket_keepalive"] = True
    try:
        make: Any = ConnectionPool
        pool: Any = make.from_url(url, **defaults)
        pool.make_connection()  # refuses unknown settings; it opens nothing
    except (ValueError, TypeError, redis_errors.RedisError) as error:
        raise problem(
            f"the broker's address can't be used: {error}",
            f"write redis://host:6379/0, then ? and settings: {known}, and those of redis-py",
        ) from error
    found: ConnectionPool = pool
    return found


def _check_port(url: str) -> None:
    """Refuse a port that is none. It may be a part of the password, which must not be shown."""
    try:
        urlsplit(url).port  # noqa: B018 - looked at for its error
    except ValueError:
        raise problem(
            "the broker's address has a port that is no number",
            "write redis://host:6379/0; a user or password with / # ? @ or : is percent-encoded, such as %23 for #",
        ) from None


def links_to(address: "str | Redis", timeout: float, settings: Mapping[str, Any]) -> Links:
    """Make the links to an address, or over the connections of a client, which stays its owner's to close."""
    if isinstance(address, str):
        return Links(pool_of(address, timeout, settings), timeout, owned=True)
    return Links(address.connection_pool, timeout)


def check_client(client: object) -> Redis:
    """Refuse what is no client of redis-py for asyncio. Raises `~diator.ConfigurationError`."""
    if isinstance(client, RedisCluster):
        raise problem(f"{client!r} is a client of a Redis Cluster", NO_CLUSTER)
    if not isinstance(client, Redis):
        raise problem(
            f"{client!r} is neither an address nor a client of redis.asyncio",
            "give an address such as 'redis://localhost:6379', or a redis.asyncio.Redis (one of a Sentinel too)",
        )
    return client
