"""Errors of the client and of the server, as Diator's. Those that are not known to pass are permanent."""

import asyncio
import socket
import ssl

from aiormq import exceptions as amqp

from diator.errors import BrokerError, BrokerUnavailableError

_REFUSED = (
    *(amqp.AuthenticationError, amqp.ProbableAuthenticationError, amqp.IncompatibleProtocolError),
    *(amqp.ChannelAccessRefused, amqp.ChannelPreconditionFailed, amqp.ChannelNotFoundEntity),
    *(amqp.ConnectionNotAllowed, amqp.ConnectionSyntaxError, amqp.ConnectionNotImplemented, amqp.MethodNotImplemented),
    *(amqp.ConnectionFrameError, amqp.ConnectionCommandInvalid, amqp.ConnectionChannelError),
    *(amqp.PublishError, ssl.SSLCertVerificationError),
)
_PASSING = (
    *(amqp.AMQPConnectionError, amqp.ChannelClosed, amqp.ChannelInvalidStateError, amqp.DeliveryError),
    *(ConnectionError, asyncio.TimeoutError, asyncio.CancelledError, TimeoutError, EOFError, socket.gaierror),
    *(asyncio.IncompleteReadError, FileNotFoundError),
)


def translate(error: BaseException) -> BrokerError:
    """Return the error of Diator that says the same; to be raised ``from`` the original."""
    if isinstance(error, BrokerError):
        return error
    said = f"RabbitMQ: {_said(error)}"
    return BrokerUnavailableError(said) if _is_passing(error) else BrokerError(said)


def _said(error: BaseException) -> str:
    if isinstance(error, asyncio.CancelledError):
        return "the connection was lost"
    if isinstance(error, amqp.PublishError):
        queue = error.message.routing_key if error.message else None
        return f"queue {queue!r} does not exist; create it: diator subscriptions apply APP"
    if isinstance(error, amqp.DeliveryError):
        return "the server has rejected a message: a queue is full, or its leader is away"
    if isinstance(error, amqp.InvalidFrameError) and "Connection.Close" in str(error):  # the answer to its opening
        return "the virtual host does not exist, or the user has no permission for it"
    if isinstance(error, amqp.ProbableAuthenticationError):
        return "the user or the password is wrong, or the user may not use the virtual host"
    return str(error) or type(error).__name__


def _is_passing(error: BaseException) -> bool:
    if isinstance(error, _REFUSED) or isinstance(error.__cause__, ssl.SSLCertVerificationError):
        return False
    if isinstance(error, amqp.InvalidFrameError):
        # The server sends heartbeats as soon as they are agreed on; the client takes one for the answer to its opening.
        return "Heartbeat" in str(error)
    return isinstance(error, _PASSING) or type(error) in (OSError, RuntimeError, Exception, ssl.SSLError)


def is_locked(error: BaseException | None) -> bool:
    """Return whether something is in use by another connection for now."""
    return isinstance(error, amqp.ChannelLockedResource)


def is_absent(error: BaseException | None) -> bool:
    """Return whether the server said that a queue or an exchange does not exist."""
    return isinstance(error, amqp.ChannelNotFoundEntity)


def is_unroutable(error: BaseException | None) -> bool:
    """Return whether the server has returned a message, since no queue gets it."""
    return isinstance(error, amqp.PublishError)
