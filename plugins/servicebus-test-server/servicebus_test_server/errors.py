"""What the server refuses, and the AMQP error that tells the client so."""

from __future__ import annotations

from uuid import uuid4

from servicebus_test_server.amqp.values import Described, Symbol, ULong

NOT_FOUND = "amqp:not-found"
NOT_ALLOWED = "amqp:not-allowed"
NOT_IMPLEMENTED = "amqp:not-implemented"
DECODE_ERROR = "amqp:decode-error"
FRAMING_ERROR = "amqp:connection:framing-error"
CONNECTION_FORCED = "amqp:connection:forced"
DETACH_FORCED = "amqp:link:detach-forced"
SIZE_EXCEEDED = "amqp:link:message-size-exceeded"
ARGUMENT_ERROR = "com.microsoft:argument-error"
LOCK_LOST = "com.microsoft:message-lock-lost"
MESSAGE_NOT_FOUND = "com.microsoft:message-not-found"
SERVER_BUSY = "com.microsoft:server-busy"
SESSION_LOCK_LOST = "com.microsoft:session-lock-lost"
SESSION_TAKEN = "com.microsoft:session-cannot-be-locked"
TIMEOUT = "com.microsoft:timeout"

STATUS = {
    NOT_FOUND: 404,
    MESSAGE_NOT_FOUND: 404,
    LOCK_LOST: 410,
    SESSION_LOCK_LOST: 410,
    SESSION_TAKEN: 409,
    NOT_ALLOWED: 400,
    NOT_IMPLEMENTED: 501,
    ARGUMENT_ERROR: 400,
    DECODE_ERROR: 400,
    SERVER_BUSY: 503,
    TIMEOUT: 408,
    "amqp:unauthorized-access": 401,
    "com.microsoft:auth-failed": 401,
}
"""Status codes of management answers by condition; any other condition is told as 500."""


class RefusalError(Exception):
    """A request cannot be granted.

    Attributes:
        condition: The AMQP error condition, such as ``amqp:not-found``.
        description: The reason, for a person.
    """

    def __init__(self, condition: str, description: str) -> None:
        super().__init__(f"{condition}: {description}")
        self.condition = condition
        self.description = description


def not_found(path: str) -> str:
    """Say that there is no such entity in the words of the service: SDKs for JavaScript know it by them alone."""
    return f"The messaging entity '{path}' could not be found."


def error(condition: str, description: str) -> Described:
    """Build an AMQP error (part 2, section 2.8.14).

    All three fields are filled: the SDK reads the third without looking whether it is there.
    """
    return Described(ULong(0x1D), [Symbol(condition), description, {Symbol("tracking-id"): str(uuid4())}])
