"""Errors of nats-py and of the server, as Diator's. Those that are not known to pass are permanent."""

import asyncio
import socket
import ssl

from nats import errors as nats_errors

from diator.errors import BrokerError, BrokerUnavailableError

_OF_CLIENT = {
    *(nats_errors.TimeoutError, nats_errors.FlushTimeoutError, nats_errors.NoServersError, nats_errors.ProtocolError),
    *(nats_errors.ConnectionClosedError, nats_errors.ConnectionDrainingError, nats_errors.ConnectionReconnectingError),
    *(nats_errors.StaleConnectionError, nats_errors.UnexpectedEOF, nats_errors.OutboundBufferLimitError),
    nats_errors.NoRespondersError,
}
_OF_SOCKET = {
    OSError,
    socket.gaierror,
    ConnectionError,
    ConnectionAbortedError,
    BrokenPipeError,
    ConnectionRefusedError,
}
_OF_STREAM = {ConnectionResetError, EOFError, asyncio.IncompleteReadError, TimeoutError, asyncio.TimeoutError}
_OF_TLS = {ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError}
PASSING: set[type[BaseException]] = {*_OF_CLIENT, *_OF_SOCKET, *_OF_STREAM, *_OF_TLS}
"""Classes, without those that derive from them, after which another attempt can succeed."""
FAILURES = (nats_errors.Error, OSError, asyncio.TimeoutError, EOFError)
"""What nats-py raises."""

_PASSING_TEXTS = (
    "empty response from server",
    "maximum connections exceeded",
    "server shutdown",
    "authentication timeout",
)
_UNAVAILABLE = 503
EXISTS, NO_CONSUMER, NO_STREAM = 10071, 10014, 10059


class RejectedError(BrokerError):
    """The server rejects a request. ``code`` says why."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code


class InDoubtError(BrokerUnavailableError):
    """The connection broke, or the time was over, before the server said whether it has stored a message."""


def translate(error: BaseException) -> BrokerError:
    """Return the error of Diator that says the same; to be raised ``from`` the original."""
    if isinstance(error, BrokerError):
        return error
    said = str(error).removeprefix("nats: ") or type(error).__name__
    is_passing = type(error) in PASSING or any(text in said.lower() for text in _PASSING_TEXTS)
    return (BrokerUnavailableError if is_passing else BrokerError)(f"NATS: {said}")


def rejected(status: int, code: int, description: str) -> BrokerError:
    """Return the error for what an answer of JetStream says: status 503 is an outage, or lack of room."""
    text = f"NATS: {description} (error {code})"
    return BrokerUnavailableError(text) if status == _UNAVAILABLE else RejectedError(text, code)
