"""The management nodes: everything about a queue or subscription that is a request with an answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeAlias, TypeVar
from uuid import UUID

from servicebus_test_server.amqp.values import Array, CodecError, Int, Symbol, Timestamp, Value
from servicebus_test_server.errors import (
    ARGUMENT_ERROR,
    NOT_ALLOWED,
    NOT_IMPLEMENTED,
    STATUS,
    RefusalError,
)
from servicebus_test_server.faults import Point
from servicebus_test_server.messages import AmqpMessage, read_message, read_value, write_answer
from servicebus_test_server.namespace import Namespace
from servicebus_test_server.outgoing import as_properties
from servicebus_test_server.sessions import Sessions
from servicebus_test_server.stored import now
from servicebus_test_server.stores import Outcome, Store

if TYPE_CHECKING:
    from servicebus_test_server.connection import Connection

T = TypeVar("T")
Answer: TypeAlias = dict[Value, Value]
_END_OF_TIME = 253_402_300_799_999  # the year 9999; from there on it means: whenever
_PREFIX = "com.microsoft:"


class ManagementRequest:
    """The operands of a request, and the entity it is about.

    The accessors raise ``RefusalError`` where an operand is missing or of another type.
    """

    def __init__(self, namespace: Namespace, path: str, body: Mapping[Value, Value]) -> None:
        self.namespace = namespace
        self.path = path
        self._body = body

    @property
    def store(self) -> Store:
        """The store that the request is about."""
        return self.namespace.backlog(self.path)

    @property
    def sessions(self) -> Sessions:
        """The sessions of the store."""
        if self.store.sessions is None:
            raise RefusalError(NOT_ALLOWED, f"{self.path} does not support sessions")
        return self.store.sessions

    def check_session(self) -> None:
        """Refuse a request in the name of a session that is lost."""
        session_id = self.maybe("session-id", str)
        if session_id is not None:
            self.sessions.held(session_id)

    def get(self, name: str, kind: type[T]) -> T:
        """An operand that must be there."""
        value = self.maybe(name, kind)
        if value is None:
            raise RefusalError(ARGUMENT_ERROR, f"{name} is missing")
        return value

    def maybe(self, name: str, kind: type[T]) -> T | None:
        """An operand, or None."""
        value = self._body.get(name)
        if value is not None and not isinstance(value, kind):
            raise RefusalError(ARGUMENT_ERROR, f"{name} must be {kind.__name__}, not {value!r}")
        return value

    def many(self, name: str, kind: type[T]) -> list[T]:
        """A list or array of values of one type."""
        found: list[T] = []
        values = self._body.get(name)
        if not isinstance(values, list):
            raise RefusalError(ARGUMENT_ERROR, f"{name} must be a list, not {values!r}")
        for value in values:
            if not isinstance(value, kind):
                raise RefusalError(ARGUMENT_ERROR, f"{name} must be of {kind.__name__}, not {value!r}")
            found.append(value)
        return found


def manage(connection: Connection, path: str, request: AmqpMessage, reply: Callable[[bytes], None]) -> None:
    """Carry a request out and answer it."""

    def answer(status: int, description: str, condition: str | None, body: Value) -> None:
        told: Answer = {"statusCode": Int(status), "statusDescription": description}
        if condition is not None:
            told["errorCondition"] = Symbol(condition)
        reply(write_answer(request.message_id, told, body))

    def apply() -> None:
        body = _perform(connection.namespace, path, request)
        answer(204 if body is None else 200, "OK", None, body)

    def refuse(refusal: RefusalError) -> None:
        answer(STATUS.get(refusal.condition, 500), refusal.description, refusal.condition, None)

    connection.guard(Point.MANAGEMENT, path, apply, refuse)


def _perform(namespace: Namespace, path: str, request: AmqpMessage) -> Answer | None:
    operation = request.application_properties.get("operation")
    perform = _OPERATIONS.get(operation) if isinstance(operation, str) else None
    if perform is None:
        raise RefusalError(NOT_IMPLEMENTED, f"{operation!r} is not supported")
    try:
        body = read_value(request)
    except CodecError as cause:
        raise RefusalError(ARGUMENT_ERROR, str(cause)) from cause
    if not isinstance(body, dict):
        raise RefusalError(ARGUMENT_ERROR, f"the operands must be a map, not {body!r}")
    return perform(ManagementRequest(namespace, path, body))


def _renew_lock(request: ManagementRequest) -> Answer:
    tokens = request.many("lock-tokens", UUID)
    return {"expirations": Array(Timestamp(request.store.renew(token)) for token in tokens)}


def _update_disposition(request: ManagementRequest) -> Answer:
    status = request.get("disposition-status", str)
    try:
        outcome = Outcome(status)
    except ValueError as cause:
        raise RefusalError(ARGUMENT_ERROR, f"{status!r} is no disposition") from cause
    request.check_session()
    a_map: type[dict[Value, Value]] = dict
    properties = as_properties(request.maybe("properties-to-modify", a_map))
    for name, part in (("DeadLetterReason", "reason"), ("DeadLetterErrorDescription", "description")):
        if outcome is Outcome.DEAD_LETTER and (told := request.maybe(f"deadletter-{part}", str)) is not None:
            properties[name] = told
    for token in request.many("lock-tokens", UUID):
        request.store.settle(token, outcome, properties)
    return {}


def _peek(request: ManagementRequest) -> Answer | None:
    first, count = request.get("from-sequence-number", int), request.get("message-count", int)
    found = request.store.peek(first, count, request.maybe("session-id", str))
    return {"messages": [{"message": stored.write(locked=False)} for stored in found]} if found else None


def _schedule(request: ManagementRequest) -> Answer:
    pairs: list[tuple[AmqpMessage, int]] = []
    items: list[dict[Value, Value]] = request.many("messages", dict)
    for item in items:
        encoded = item.get("message")
        if not isinstance(encoded, bytes):
            raise RefusalError(ARGUMENT_ERROR, f"message must be binary, not {encoded!r}")
        try:
            message = read_message(encoded)
        except CodecError as cause:
            raise RefusalError(ARGUMENT_ERROR, str(cause)) from cause
        pairs.append((message, message.scheduled_for or now()))
    return {"sequence-numbers": Array(request.namespace.send_target(request.path).schedule(pairs))}


def _cancel(request: ManagementRequest) -> Answer:
    request.store.cancel(request.many("sequence-numbers", int))
    return {}


def _receive_deferred(request: ManagementRequest) -> Answer:
    request.check_session()
    deletes = request.maybe("receiver-settle-mode", int) == 0
    found = request.store.receive_deferred(request.many("sequence-numbers", int), deletes)
    messages: list[Value] = []
    for stored in found:
        entry: Answer = {"message": stored.write()}
        if stored.lock is not None:
            entry["lock-token"] = stored.lock.token
        messages.append(entry)
    return {"messages": messages}


def _renew_session_lock(request: ManagementRequest) -> Answer:
    return {"expiration": Timestamp(request.sessions.renew(request.get("session-id", str), now()))}


def _get_session_state(request: ManagementRequest) -> Answer:
    return {"session-state": request.sessions.held(request.get("session-id", str)).state}


def _set_session_state(request: ManagementRequest) -> Answer:
    request.sessions.held(request.get("session-id", str)).set_state(request.maybe("session-state", bytes), now())
    return {}


def _list_sessions(request: ManagementRequest) -> Answer | None:
    skip, top = request.get("skip", int), request.get("top", int)
    since = request.get("last-updated-time", int)
    names = request.store.session_ids(None if since >= _END_OF_TIME else since)[skip : skip + top]
    return {"skip": Int(skip + len(names)), "sessions-ids": Array(names)} if names else None


_OPERATIONS: dict[str, Callable[[ManagementRequest], Answer | None]] = {
    _PREFIX + "renew-lock": _renew_lock,
    _PREFIX + "update-disposition": _update_disposition,
    _PREFIX + "peek-message": _peek,
    _PREFIX + "schedule-message": _schedule,
    _PREFIX + "cancel-scheduled-message": _cancel,
    _PREFIX + "receive-by-sequence-number": _receive_deferred,
    _PREFIX + "renew-session-lock": _renew_session_lock,
    _PREFIX + "get-session-state": _get_session_state,
    _PREFIX + "set-session-state": _set_session_state,
    _PREFIX + "get-message-sessions": _list_sessions,
}
