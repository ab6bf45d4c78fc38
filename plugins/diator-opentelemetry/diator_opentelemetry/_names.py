"""The names of the semantic conventions, version 1.44, and their values here.

https://opentelemetry.io/docs/specs/semconv/messaging/. All are in development there: a change is made in this module.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Final
from urllib.parse import urlsplit

from diator.brokers.port import Broker

SYSTEM: Final = "messaging.system"
OPERATION: Final = "messaging.operation.name"
OPERATION_TYPE: Final = "messaging.operation.type"
DESTINATION: Final = "messaging.destination.name"
CONSUMER_GROUP: Final = "messaging.consumer.group.name"
MESSAGE_ID: Final = "messaging.message.id"
CONVERSATION_ID: Final = "messaging.message.conversation_id"
MESSAGE_COUNT: Final = "messaging.batch.message_count"
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"
ERROR_TYPE: Final = "error.type"
EVENT_TYPE: Final = "cloudevents.event_type"
ATTEMPT: Final = "diator.attempt"
"""Diator's own: which try of the handler it is, from 1."""

OPERATION_DURATION: Final = "messaging.client.operation.duration"
SENT: Final = "messaging.client.sent.messages"
CONSUMED: Final = "messaging.client.consumed.messages"
PROCESS_DURATION: Final = "messaging.process.duration"
SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
"""The bounds that the conventions advise for both durations."""

Attributes = dict[str, str | int]


def of_operation(name: str, broker: Broker, topic: str | None) -> Attributes:
    """Attributes of ``create``, ``send`` or ``process``, with few values each, as metrics need them."""
    found: Attributes = {OPERATION: name, OPERATION_TYPE: name, SYSTEM: broker.system, **of_server(broker.address)}
    if topic is not None:
        found[DESTINATION] = topic
    return found


@lru_cache(maxsize=64)
def of_server(address: str | None) -> Mapping[str, str | int]:
    """The attributes of a server such as ``localhost:6379``."""
    if address is None:
        return {}
    parts = urlsplit(f"//{address}")
    return {SERVER_ADDRESS: parts.hostname or address} | ({} if parts.port is None else {SERVER_PORT: parts.port})


def error_type(error: BaseException) -> str:
    """The class of an error."""
    cls = type(error)
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"
