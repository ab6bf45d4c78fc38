"""Errors of the SDK, as Diator's. Only errors that are known to pass are temporary; all others are permanent."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Awaitable, Generator

from azure.core.exceptions import (
    AzureError,
    HttpResponseError,
    ServiceRequestError,
    ServiceResponseError,
)
from azure.servicebus import exceptions as sdk

from diator.errors import BrokerError, BrokerUnavailableError

PLAN = "`diator-azure plan module:app` prints the commands that create it"

TEMPORARY: tuple[type[BaseException], ...] = (
    sdk.ServiceBusConnectionError,
    sdk.ServiceBusCommunicationError,
    sdk.OperationTimeoutError,
    sdk.ServiceBusServerBusyError,
    sdk.ServiceBusQuotaExceededError,
    sdk.MessagingEntityDisabledError,
    sdk.SessionCannotBeLockedError,
    ServiceRequestError,
    ServiceResponseError,
    ConnectionError,
    socket.gaierror,
    TimeoutError,
    asyncio.TimeoutError,
    EOFError,
    ssl.SSLEOFError,
    ssl.SSLZeroReturnError,
    ssl.SSLSyscallError,
)
"""Classes, with all that derive from them, after which another attempt can succeed."""

LOST: tuple[type[BaseException], ...] = (
    sdk.MessageLockLostError,
    sdk.SessionLockLostError,
    sdk.MessageNotFoundError,
)
"""What a settlement or a renewal fails with when the lock is gone. See `unclear` for settlements."""

REFUSED: tuple[type[BaseException], ...] = (
    sdk.ServiceBusServerBusyError,
    sdk.ServiceBusQuotaExceededError,
    sdk.MessagingEntityNotFoundError,
    sdk.MessagingEntityDisabledError,
    sdk.MessageSizeExceededError,
    sdk.ServiceBusAuthenticationError,
    sdk.ServiceBusAuthorizationError,
)
"""What the service answers with when it has stored nothing of what was sent."""

_PASSING = frozenset(
    {
        "amqp:internal-error",
        "amqp:illegal-state",
        "amqp:resource-locked",
        "amqp:connection:forced",
        "amqp:link:detach-forced",
        "amqp:link:transfer-limit-exceeded",
        "amqp:session:errant-link",
        "amqp:session:unattached-handle",
        "amqp:client-error",
        "amqp:socket-error",
        "amqp:unknown-error",
        "com.microsoft:container-close",
        "com.microsoft:entity-updated",
        "com.microsoft:message-wait-timeout",
        "com.microsoft:operation-cancelled",
        "com.microsoft:partition-not-owned",
        "com.microsoft:server-busy",
        "com.microsoft:timeout",
    }
)
"""Conditions that the SDK has no class for, or not always, after which another attempt can succeed."""
_BROKEN = (
    "has already been shutdown",
    "'NoneType' object ",
    "Link already closed",
    "Invalid link",
    "handler is not initialized",
    "Management links are already open or opening",
    "Did not receive reciprocal protocol header",
    "Found no matching pending transfer",
)
"""What Python's own errors say that the SDK raises after its connection broke and its parts were dropped."""
_BUILT_IN = (ValueError, AttributeError, TypeError, RuntimeError)
_FOREVER = "CERTIFICATE_VERIFY_FAILED"
_CLOSE_TIMEOUT = 3.0
"""Seconds that closing may take."""


def translate(error: BaseException, what: str) -> BrokerError:
    """Return the matching error of Diator, with the original as its cause. ``what`` names the entity.

    Only what is known to pass is an outage. All else is permanent: another attempt does not correct a message, this
    program or the SDK.
    """
    if isinstance(error, BrokerError):
        return error
    translated = _translated(error, what)
    translated.__cause__ = error
    return translated


def _translated(error: BaseException, what: str) -> BrokerError:
    if isinstance(error, sdk.MessagingEntityNotFoundError):
        return BrokerError(f"Service Bus has no entity {what!r}; {PLAN}")
    text = f"Service Bus, {what}: {str(error).rstrip('. ') or type(error).__name__}"
    if is_temporary(error):
        return BrokerUnavailableError(text)
    return BrokerError(text if isinstance(error, AzureError) else f"{text} ({type(error).__name__})")


@contextlib.contextmanager
def translated(what: str) -> Generator[None, None, None]:
    """Raise every error as one of Diator."""
    try:
        yield
    except BrokerError:
        raise
    except Exception as error:
        raise translate(error, what) from error


def is_temporary(error: BaseException) -> bool:
    """Whether trying again later can help, as far as is known."""
    if _FOREVER in str(error):
        return False
    if isinstance(error, TEMPORARY) or type(error) is OSError:  # itself: no route, no network
        return True
    if isinstance(error, HttpResponseError):
        return _is_passing_status(error.status_code)
    if type(error) is sdk.ServiceBusError:  # what derives from it has a class of its own above, or does not pass
        return _may_pass(error)
    return isinstance(error, _BUILT_IN) and any(text in str(error) for text in _BROKEN)


def _may_pass(error: sdk.ServiceBusError) -> bool:
    """Look at the condition of an error that the SDK has no class for, or at the error that it stands for."""
    condition: object = getattr(error, "_condition", None)
    if condition is not None:
        return str(getattr(condition, "value", condition)) in _PASSING
    inner: object = getattr(error, "inner_exception", None)
    if isinstance(inner, BaseException):
        return is_temporary(inner)
    return _is_passing_status(getattr(error, "_status_code", None))


def unclear(error: BaseException, what: str) -> BrokerUnavailableError | None:
    """Return the error to raise if a settlement may be recorded, though its lock is reported as lost.

    The SDK asks the management node if the link has not confirmed a settlement; the answer is the same for what the
    link has recorded and for what it has not. Only that node gives a status.
    """
    if getattr(error, "_status_code", None) is None:
        return None
    text = f"Service Bus, {what}: the connection broke before it had confirmed an outcome, which may be recorded or not"
    return BrokerUnavailableError(text)


def _is_passing_status(status: object) -> bool:
    return isinstance(status, int) and (status in (408, 429) or status >= 500)


async def quietly(closing: Awaitable[object]) -> None:
    """Close something of the SDK; a broken connection may make it fail or hang, which changes nothing."""
    with contextlib.suppress(Exception):
        await asyncio.wait_for(closing, _CLOSE_TIMEOUT)
