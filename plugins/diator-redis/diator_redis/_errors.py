"""Errors of redis-py and of the server, as Diator's. Those that are not known to pass are permanent."""

import asyncio
import re
import socket
import ssl

from redis import exceptions as redis_errors
from redis.sentinel import MasterNotFoundError, SlaveNotFoundError

from diator.errors import BrokerError, BrokerUnavailableError

_OF_SERVER = {redis_errors.BusyLoadingError, redis_errors.OutOfMemoryError, redis_errors.ReadOnlyError}
_OF_FAILOVER = {redis_errors.MasterDownError, MasterNotFoundError, SlaveNotFoundError, redis_errors.NoScriptError}
_OF_CONNECTION = {redis_errors.ConnectionError, redis_errors.TimeoutError, TimeoutError, asyncio.TimeoutError}
# What a dead or restarting server looks like to a socket. `OSError` itself is what asyncio raises where no address of
# a host answers; a file that is missing is a socket whose server has not started.
_OF_SOCKET = {OSError, FileNotFoundError, socket.gaierror, ConnectionError, ConnectionAbortedError, BrokenPipeError}
_OF_STREAM = {ConnectionRefusedError, ConnectionResetError, *(EOFError, asyncio.IncompleteReadError)}
_OF_TLS = {ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError}
_OF_NETWORK: set[type[BaseException]] = {*_OF_SOCKET, *_OF_STREAM, *_OF_TLS}
PASSING = {*_OF_SERVER, *_OF_FAILOVER, *_OF_CONNECTION, *_OF_NETWORK}
"""Classes, without those that derive from them, after which another attempt can succeed."""

# How replies begin that redis-py has no class for in each version, or that a script passes on as text.
_BEGIN = r"(?:^|@user_script: ?\d+: )-?"
_PASSING_REPLY = re.compile(_BEGIN + r"(?:LOADING|READONLY|OOM|MISCONF|NOREPLICAS|BUSY|UNBLOCKED|MASTERDOWN)\b")
_READ_ONLY_REPLY = re.compile(_BEGIN + r"READONLY\b")
_CLUSTER_REPLY = re.compile(_BEGIN + r"(?:MOVED|ASK|CROSSSLOT|CLUSTERDOWN|TRYAGAIN)\b")
_TOO_MANY_CLIENTS = "max number of clients reached"
POOL_IS_EMPTY = ("Too many connections", "No connection available")
"""What the pools of redis-py say in the versions that have no class for it."""

_IN_CLUSTER = (redis_errors.AskError, redis_errors.TryAgainError, redis_errors.ClusterCrossSlotError)
_CLUSTER = (*_IN_CLUSTER, redis_errors.ClusterDownError, redis_errors.RedisClusterException)
_NOT_ALLOWED = (redis_errors.AuthenticationError, redis_errors.AuthorizationError)
_REFUSALS = (redis_errors.ResponseError, redis_errors.BusyLoadingError, *_NOT_ALLOWED)
NO_CLUSTER = (
    "Redis Cluster is not supported: RedisBroker needs all keys on one server; use a single Redis, or one behind "
    "Sentinel (RedisPubSubBroker works with the address of one node)"
)
_MORE_CONNECTIONS = (
    "the client's connection pool has no free connection; give it more: max_connections must cover all the connections "
    "listed under 'Connections' in the README of diator-redis"
)


def translate(error: BaseException) -> BrokerError:
    """Return the error of Diator that says the same; to be raised ``from`` the original."""
    if isinstance(error, BrokerError):
        return error
    said = str(error) or type(error).__name__
    if _is_of_cluster(error):
        return BrokerError(f"{NO_CLUSTER}; the server said: {said}")
    if _is_pool_empty(error):
        return BrokerError(f"Redis: {_MORE_CONNECTIONS} ({said})")
    return BrokerUnavailableError(f"Redis: {said}") if is_temporary(error) else BrokerError(f"Redis: {said}")


def is_temporary(error: BaseException) -> bool:
    """Return whether trying again later is known to help."""
    if _is_pool_empty(error) or _is_of_cluster(error):
        return False
    if type(error) is redis_errors.ConnectionError:
        origin = _origin_of(error)
        return origin is None or is_temporary(origin)
    said = str(error) if isinstance(error, redis_errors.ResponseError) else ""
    return type(error) in PASSING or _PASSING_REPLY.search(said) is not None or _TOO_MANY_CLIENTS in said


def _origin_of(error: BaseException) -> BaseException | None:
    """Return what redis-py turned into a `ConnectionError`: all that fails while it connects, mistakes in code too."""
    context = error.__context__
    if error.__cause__ is None and isinstance(context, OSError) and (context.strerror or "") in str(error):
        return context  # and not what the caller of all this happens to handle
    return error.__cause__


def _is_of_cluster(error: BaseException) -> bool:
    """Return whether it is what a node of a cluster says to a client that takes it for a server of its own."""
    if isinstance(error, redis_errors.MasterDownError):  # a replica says it too, and redis-py counts it as one
        return False
    by_text = isinstance(error, redis_errors.ResponseError) and _CLUSTER_REPLY.search(str(error)) is not None
    return by_text or isinstance(error, _CLUSTER)


def _is_pool_empty(error: BaseException) -> bool:
    if not isinstance(error, redis_errors.ConnectionError):
        return False
    return isinstance(error, redis_errors.MaxConnectionsError) or str(error).startswith(POOL_IS_EMPTY)


def is_reply(error: BaseException) -> bool:
    """Return whether the server has rejected a command with this error, and so did not carry it out."""
    return isinstance(error, _REFUSALS) or _TOO_MANY_CLIENTS in str(error)


def is_breaking(reply: object) -> bool:
    """Return whether a reply means that another server may be the right one, so that the connection is given up."""
    broken = isinstance(reply, (redis_errors.ReadOnlyError, redis_errors.ConnectionError))
    return broken or (isinstance(reply, Exception) and _READ_ONLY_REPLY.search(str(reply)) is not None)
