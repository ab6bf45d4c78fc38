"""Errors of redis-py and of the server, as Diator's. All are permanent that are not known to pass."""

import asyncio
import re
import socket
import ssl

from redis import exceptions as redis_errors
from redis.sentinel import MasterNotFoundError, SlaveNotFoundError

from diator.errors import BrokerError, BrokerUnavailableError

PASSING: frozenset[type[BaseException]] = frozenset(
    {
        redis_errors.ConnectionError,
        redis_errors.TimeoutError,
        redis_errors.BusyLoadingError,
        redis_errors.OutOfMemoryError,
        redis_errors.ReadOnlyError,
        redis_errors.NoScriptError,
        redis_errors.MasterDownError,
        MasterNotFoundError,
        SlaveNotFoundError,
        # What a dead or restarting server looks like to a socket. `OSError` itself is what asyncio raises where no
        # address of a host answers; a file that is missing is a socket whose server has not started.
        OSError,
        FileNotFoundError,
        socket.gaierror,
        ConnectionError,
        ConnectionAbortedError,
        ConnectionRefusedError,
        ConnectionResetError,
        BrokenPipeError,
        TimeoutError,
        asyncio.TimeoutError,
        EOFError,
        asyncio.IncompleteReadError,
        ssl.SSLEOFError,
        ssl.SSLZeroReturnError,
        ssl.SSLSyscallError,
    }
)
"""Classes, without those that derive from them, after which another attempt can succeed."""

PASSING_REPLY = re.compile(
    r"(?:^|@user_script: ?\d+: )-?(?:LOADING|READONLY|OOM|MISCONF|NOREPLICAS|BUSY|UNBLOCKED|MASTERDOWN)\b"
)
"""How replies begin that redis-py has no class for in each version, or that a script passes on as text."""
READ_ONLY_REPLY = re.compile(r"(?:^|@user_script: ?\d+: )-?READONLY\b")
CLUSTER_REPLY = re.compile(r"(?:^|@user_script: ?\d+: )-?(?:MOVED|ASK|CROSSSLOT|CLUSTERDOWN|TRYAGAIN)\b")
TOO_MANY_CLIENTS = "max number of clients reached"
POOL_IS_EMPTY = ("Too many connections", "No connection available")
"""How the pools of redis-py say it in the versions that have no class for it."""

_CLUSTER = (
    redis_errors.AskError,
    redis_errors.TryAgainError,
    redis_errors.ClusterCrossSlotError,
    redis_errors.ClusterDownError,
    redis_errors.RedisClusterException,
)
_REFUSALS = (
    redis_errors.ResponseError,
    redis_errors.BusyLoadingError,
    redis_errors.AuthenticationError,
    redis_errors.AuthorizationError,
)
NO_CLUSTER = (
    "Redis Cluster is not supported: RedisBroker needs all keys on one server; use a single Redis, or one behind "
    "Sentinel (RedisPubSubBroker works with the address of one node)"
)
MORE_CONNECTIONS = (
    "the client's connection pool has no free connection; give it more: max_connections must cover all the connections "
    "listed under 'Connections' in the README of diator-redis"
)


def translate(error: BaseException) -> BrokerError:
    """Give the error of Diator that says the same; to be raised ``from`` the original."""
    if isinstance(error, BrokerError):
        return error
    said = in_words(error)
    if is_of_cluster(error):
        return BrokerError(f"{NO_CLUSTER}; the server said: {said}")
    if is_pool_empty(error):
        return BrokerError(f"Redis: {MORE_CONNECTIONS} ({said})")
    return BrokerUnavailableError(f"Redis: {said}") if is_temporary(error) else BrokerError(f"Redis: {said}")


def in_words(error: BaseException) -> str:
    """Return the text of an error, or its class if it has none."""
    return str(error) or type(error).__name__


def is_temporary(error: BaseException) -> bool:
    """Whether trying again later is known to help."""
    if is_pool_empty(error) or is_of_cluster(error):
        return False
    if type(error) is redis_errors.ConnectionError:
        origin = _origin_of(error)
        return origin is None or is_temporary(origin)
    return type(error) in PASSING or (isinstance(error, redis_errors.ResponseError) and is_passing_text(str(error)))


def _origin_of(error: BaseException) -> BaseException | None:
    """Give what redis-py turned into a `ConnectionError`: all that fails while it connects, mistakes in code too."""
    context = error.__context__
    if error.__cause__ is None and isinstance(context, OSError) and (context.strerror or "") in str(error):
        return context  # and not what the caller of all this happens to handle
    return error.__cause__


def is_passing_text(text: str) -> bool:
    """Whether a reply of the server, given as its text, is one of those that pass."""
    return PASSING_REPLY.search(text) is not None or TOO_MANY_CLIENTS in text


def is_of_cluster(error: BaseException) -> bool:
    """Whether it is what a node of a cluster says to those who take it for a server of its own."""
    if isinstance(error, redis_errors.MasterDownError):  # a replica says it too, and redis-py counts it as one
        return False
    by_text = isinstance(error, redis_errors.ResponseError) and CLUSTER_REPLY.search(str(error)) is not None
    return isinstance(error, _CLUSTER) or by_text


def is_pool_empty(error: BaseException) -> bool:
    """Whether the client's pool has no connection left."""
    if not isinstance(error, redis_errors.ConnectionError):
        return False
    return isinstance(error, redis_errors.MaxConnectionsError) or str(error).startswith(POOL_IS_EMPTY)


def is_reply(error: BaseException) -> bool:
    """Whether the server has refused a command with this, which is then surely not carried out."""
    return isinstance(error, _REFUSALS) or TOO_MANY_CLIENTS in str(error)


def is_breaking(reply: object) -> bool:
    """Whether a reply tells that another server may be the right one, so that the connection is to be given up."""
    if not isinstance(reply, Exception):
        return False
    broken = isinstance(reply, (redis_errors.ReadOnlyError, redis_errors.ConnectionError))
    return broken or READ_ONLY_REPLY.search(str(reply)) is not None


def is_missing_group(error: BaseException) -> bool:
    """Whether the server does not know the stream or the group, as after a flush."""
    return "NOGROUP" in str(error)
