"""Errors of redis-py and of the server, as Diator's: what trying again later can help, and what it can't."""

import asyncio
import re

from redis import exceptions as redis_errors

from diator.errors import BrokerError, BrokerUnavailableError

TEMPORARY: tuple[type[BaseException], ...] = (
    redis_errors.ConnectionError,
    redis_errors.TimeoutError,
    redis_errors.OutOfMemoryError,
    redis_errors.ReadOnlyError,
    redis_errors.NoScriptError,
    redis_errors.TryAgainError,
    redis_errors.ClusterDownError,
    redis_errors.AskError,
    OSError,
    asyncio.TimeoutError,
    EOFError,
)
"""Classes, with all that derive from them, after which another attempt can succeed."""

PERMANENT: tuple[type[BaseException], ...] = (
    redis_errors.AuthenticationError,
    redis_errors.AuthorizationError,
    redis_errors.NoPermissionError,
)
"""Classes that derive from temporary ones in redis-py, but need a person."""

TEMPORARY_REPLY = re.compile(
    r"(?:^|@user_script: ?\d+: )-?"
    r"(?:LOADING|READONLY|OOM|MISCONF|NOREPLICAS|BUSY|UNBLOCKED|CLUSTERDOWN|MASTERDOWN|TRYAGAIN)\b"
)
"""How replies begin that redis-py has no class for in each version, or that a script passes on as text."""
READ_ONLY_REPLY = re.compile(r"(?:^|@user_script: ?\d+: )-?READONLY\b")


def translate(error: BaseException) -> BrokerError:
    """Give the error of Diator that says the same; to be raised ``from`` the original."""
    if isinstance(error, BrokerError):
        return error
    text = f"Redis: {str(error) or type(error).__name__}"
    return BrokerUnavailableError(text) if is_temporary(error) else BrokerError(text)


def is_temporary(error: BaseException) -> bool:
    """Whether trying again later can help."""
    if isinstance(error, PERMANENT):
        return False
    return isinstance(error, TEMPORARY) or is_temporary_text(str(error))


def is_temporary_text(text: str) -> bool:
    """Whether a reply of the server, given as its text, is one of those that pass."""
    return TEMPORARY_REPLY.search(text) is not None


def is_breaking(reply: object) -> bool:
    """Whether a reply tells that another server may be the right one, so that the connection is to be given up."""
    if not isinstance(reply, Exception):
        return False
    broken = isinstance(reply, (redis_errors.ReadOnlyError, redis_errors.ConnectionError))
    return broken or READ_ONLY_REPLY.search(str(reply)) is not None


def is_missing_group(error: BaseException) -> bool:
    """Whether the server does not know the stream or the group, as after a flush."""
    return "NOGROUP" in str(error)
