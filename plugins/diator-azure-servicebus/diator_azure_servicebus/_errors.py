"""Errors of the SDK, as Diator's: what trying again later can help, and what it can't."""

import asyncio
import contextlib
from collections.abc import Awaitable

from azure.core.exceptions import AzureError, ClientAuthenticationError, ServiceRequestError, ServiceResponseError
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
    OSError,
    EOFError,
    asyncio.TimeoutError,
)
"""Classes, with all that derive from them, after which another attempt can succeed."""

PERMANENT: tuple[type[BaseException], ...] = (
    sdk.ServiceBusAuthenticationError,
    sdk.ServiceBusAuthorizationError,
    sdk.MessagingEntityNotFoundError,
    sdk.MessagingEntityAlreadyExistsError,
    sdk.MessageSizeExceededError,
    sdk.MessageNotFoundError,
    sdk.MessageLockLostError,
    sdk.SessionLockLostError,
    sdk.MessageAlreadySettled,
    sdk.AutoLockRenewFailed,
    sdk.AutoLockRenewTimeout,
    ClientAuthenticationError,
)
"""Classes that need a person, or another message."""

LOST: tuple[type[BaseException], ...] = (
    sdk.MessageLockLostError,
    sdk.SessionLockLostError,
    sdk.MessageNotFoundError,
)
"""What a settlement or a renewal fails with when the lock is gone.

After a broken connection it is no proof that the message comes again: the settlement may have been applied.
"""

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

SDK: tuple[type[BaseException], ...] = (AzureError, OSError, EOFError, asyncio.TimeoutError, ValueError, AttributeError)
"""All that the SDK raises. The last two come out of a handler that is being shut down after a broken connection."""

_CLOSE = 3.0
"""Seconds that closing may take."""
_NEVER = ("amqp:not-allowed", "amqp:not-implemented", "amqp:decode-error", "argument-error", "precondition-failed")
"""Conditions that the SDK has no class for and that stay; all others that it has none for may pass."""


def translate(error: BaseException, what: str) -> BrokerError:
    """Give the error of Diator that says the same; to be raised ``from`` the original. ``what`` names the entity."""
    if isinstance(error, BrokerError):
        return error
    if isinstance(error, sdk.MessagingEntityNotFoundError):
        return BrokerError(f"Service Bus has no entity {what!r}; {PLAN}")
    text = f"Service Bus, {what}: {str(error).rstrip('. ') or type(error).__name__}"
    return BrokerUnavailableError(text) if is_temporary(error) else BrokerError(text)


def is_temporary(error: BaseException) -> bool:
    """Whether trying again later can help."""
    if isinstance(error, PERMANENT):
        return False
    return isinstance(error, TEMPORARY) or not any(condition in str(error) for condition in _NEVER)


async def quietly(closing: Awaitable[object]) -> None:
    """Close something of the SDK; a broken connection may make it fail or hang, which changes nothing."""
    with contextlib.suppress(*SDK):
        await asyncio.wait_for(closing, _CLOSE)
