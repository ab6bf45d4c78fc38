"""The token node, ``$cbs``: every token is accepted."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from servicebus_test_server.addresses import path_of_address
from servicebus_test_server.amqp.values import Int, Value
from servicebus_test_server.errors import NOT_IMPLEMENTED, RefusalError
from servicebus_test_server.faults import Point
from servicebus_test_server.messages import AmqpMessage, write_answer

if TYPE_CHECKING:
    from servicebus_test_server.connection import Connection


def put_token(connection: Connection, request: AmqpMessage, reply: Callable[[bytes], None]) -> None:
    """Answer a request: 202 for a token, 401 where a fault refuses it, 400 for any other operation."""
    operation, audience = (request.application_properties.get(key) for key in ("operation", "name"))

    def answer(status: int, description: str) -> None:
        told: dict[Value, Value] = {"status-code": Int(status), "status-description": description}
        reply(write_answer(request.message_id, told, None))

    def apply() -> None:
        if operation != "put-token":
            raise RefusalError(NOT_IMPLEMENTED, f"$cbs does not know {operation!r}")
        answer(202, "Accepted")

    def refuse(refusal: RefusalError) -> None:
        answer(400 if refusal.condition == NOT_IMPLEMENTED else 401, str(refusal))

    try:
        entity = path_of_address(audience) if isinstance(audience, str) else ""
    except RefusalError as refusal:
        refuse(refusal)
    else:
        connection.guard(Point.PUT_TOKEN, entity, apply, refuse)
