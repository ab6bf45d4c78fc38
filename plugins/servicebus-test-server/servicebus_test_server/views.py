"""What tests see of the server's state: pictures that do not change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from servicebus_test_server.amqp.values import Value
from servicebus_test_server.stored import Stored

if TYPE_CHECKING:
    from servicebus_test_server.connection import Connection


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """A message in a store, as it is at the moment of asking.

    Attributes:
        sequence_number: Its number in the store.
        state: ``active``, ``locked``, ``deferred`` or ``scheduled``.
        body: The data sections, joined.
        application_properties: The sender's own properties; of a dead letter also ``DeadLetterReason`` and
            ``DeadLetterErrorDescription``.
        delivery_count: Failed deliveries so far.
    """

    sequence_number: int
    state: str
    message_id: Value
    session_id: str | None
    subject: Value
    body: bytes
    application_properties: dict[Value, Value]
    delivery_count: int


@dataclass(frozen=True, slots=True)
class OpenConnection:
    """A client that is connected.

    Attributes:
        container_id: ``SBSender-...`` or ``SBReceiver-...``, unless the client was given a ``client_identifier``.
        entities: The paths of the entities it has links to, without the request nodes.
    """

    container_id: str
    entities: tuple[str, ...]


def snapshot(stored: Stored) -> StoredMessage:
    """Make the picture of a stored message."""
    message = stored.message
    return StoredMessage(
        stored.sequence,
        "locked" if stored.lock is not None else stored.state.name.lower(),
        message.message_id,
        message.session_id,
        message.properties.get("subject"),
        message.data(),
        dict(message.application_properties),
        stored.delivery_count,
    )


def describe(connection: Connection) -> OpenConnection:
    """Make the picture of a connection."""
    links = [link.path for channel in connection.channels.values() for link in channel.links.values()]
    return OpenConnection(
        connection.container_id, tuple(path for path in links if not path.endswith(("$cbs", "$management")))
    )
