"""Addresses: the broker reads its own settings from the query and passes the rest to redis-py."""

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode, urlsplit

from redis import exceptions as redis_errors
from redis.asyncio import ConnectionPool, Redis, RedisCluster

from diator.brokers.address import Address, Parse, bad_address, read_address, unknown_setting
from diator_redis._client import Client
from diator_redis._errors import NO_CLUSTER

_SERVER = "redis://localhost:6379/0"
_SOCKET = "unix:///run/redis.sock"


def split_settings(url: str, settings: Mapping[str, Parse]) -> tuple[str, dict[str, Any]]:
    """Return an address without the settings in its query, and these. Raises `~diator.ConfigurationError`."""
    address = _read(url, settings)
    parts = address.parts
    bare = f"{parts.scheme}://{parts.netloc}{parts.path}"
    return f"{bare}?{urlencode(address.rest)}" if address.rest else bare, dict(address.settings)


def _read(url: str, settings: Mapping[str, Parse]) -> Address:
    """Parse an address, and reject what redis-py would read differently than it was meant."""
    is_socket = url.lower().startswith("unix:")
    write = f"write {_SOCKET}, with three slashes" if is_socket else f"write {_SERVER}"
    address = read_address(url, settings, _SOCKET if is_socket else _SERVER, leave_rest=True)
    parts = address.parts
    if is_socket and parts.netloc.rpartition("@")[2]:
        raise address.error("has a host, but a socket has a path only", write)
    if is_socket and not parts.path.strip("/"):
        raise address.error("has no path to a socket", write)
    if not is_socket and (not parts.hostname or not re.fullmatch(r"[\w.:%-]+", parts.hostname)):
        raise address.error("has no host, or a host with invalid characters", write)
    if not is_socket and not re.fullmatch(r"/?|/\d{1,9}", parts.path, re.ASCII):
        raise address.error("has a path that is not the number of a database", f"{write}, where 0 is the database")
    twice = {"db": parts.path.strip("/"), "username": parts.username, "password": parts.password}
    twice |= {"host": parts.hostname, "port": "6379", "path": "/"}
    for name in twice.keys() & address.rest.keys() if not is_socket else ():
        if twice[name]:
            raise address.error(f"has {name!r} as a setting, which belongs before the ?", f"{write}, without {name}=")
    if not re.fullmatch(r"\d{1,9}", address.rest.get("db", "0"), re.ASCII):
        raise address.error("has a db that is not the number of a database", "write db=0, for example")
    if parts.username and parts.password is None:
        how = "write redis://:PASSWORD@host for a password alone, redis://USER:PASSWORD@host for both"
        raise address.error("has a user without a password", f"{how}, redis://USER:@host for a user without one")
    return address


def pool_of(url: str, timeout: float, settings: Mapping[str, Any]) -> ConnectionPool:
    """Make the pool of connections for an address. Raises `~diator.ConfigurationError` for unknown settings."""
    rest = _read(url, {}).rest
    # A Client has its own timer for all commands of an exchange.
    defaults: dict[str, Any] = {"socket_timeout": None, "socket_connect_timeout": timeout, "max_connections": 2**31}
    defaults |= {} if url.startswith("unix") else {"socket_keepalive": True}
    try:
        make: Any = ConnectionPool
        pool: Any = make.from_url(url, **defaults)
        pool.make_connection()  # rejects unknown settings; opens nothing
    except (ValueError, TypeError, redis_errors.RedisError) as error:
        write = "write redis://host:6379/0?lease=60, or settings of redis-py, of which ssl_... need rediss://"
        for name in rest:
            if isinstance(error, TypeError) and repr(name) in str(error):
                raise unknown_setting(name, settings, write) from error
        known = ", ".join(sorted(settings))
        raise bad_address(f"the broker's address can't be used: {error}", f"{write}; Diator's are: {known}") from error
    found: ConnectionPool = pool
    return found


def telemetry_address(address: "str | Redis") -> str | None:
    """Return the address of the server for telemetry: without user, password and settings. A Sentinel has none."""
    if isinstance(address, str):
        parts = urlsplit(address)
        return f"{parts.hostname}:{parts.port or 6379}" if parts.hostname else parts.path
    given = address.connection_pool.connection_kwargs
    return f"{given['host']}:{given.get('port', 6379)}" if "host" in given else given.get("path")


def connect_to(address: "str | Redis", timeout: float, settings: Mapping[str, Any]) -> Client:
    """Return a client for an address, or for the connections of a client of redis-py, which its owner closes."""
    if isinstance(address, str):
        return Client(pool_of(address, timeout, settings), timeout, owned=True)
    return Client(address.connection_pool, timeout)


def check_client(client: object) -> Redis:
    """Ensure that it is a client of redis-py for asyncio. Raises `~diator.ConfigurationError`."""
    if isinstance(client, RedisCluster):
        raise bad_address(f"{client!r} is a client of a Redis Cluster", NO_CLUSTER)
    if not isinstance(client, Redis):
        raise bad_address(
            f"{client!r} is neither an address nor a client of redis.asyncio",
            "give an address such as 'redis://localhost:6379', or a redis.asyncio.Redis (one of a Sentinel too)",
        )
    return client
