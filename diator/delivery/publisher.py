"""Publishing: brokered events become messages inside the unit of work, and leave when it has closed well."""

import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone

import msgspec

from diator.brokers.envelope import Envelope, Outgoing
from diator.brokers.port import Broker
from diator.brokers.shielding import shielded
from diator.context import NO_HEADERS, TRACE, current, new_id, traced
from diator.delivery.catalog import Catalog, entry_of
from diator.delivery.creation import Creations
from diator.delivery.telling import Telling
from diator.engine.hints import show
from diator.errors import (
    BrokerUnavailableError,
    ConfigurationError,
    MessageTooLargeError,
    NotPublishedError,
    Problem,
    PublishError,
)
from diator.hooks import Published
from diator.messages import Event


class Publisher:
    """Makes messages of events and hands them to the broker: the ``Sending`` of an app (see `diator.engine.events`)."""

    def __init__(self, broker: Broker, source: str, catalog: Catalog, timeout: float, telling: Telling) -> None:
        self.broker = broker
        self.timeout = timeout
        """Seconds that publishing may take."""
        self.telling = telling
        self.creations = Creations()
        """The subscriptions that the workers of this process are creating: what is published to them waits."""
        self._source = source
        self._entries = catalog.entries
        self._handled = catalog.handled
        self._limit = broker.max_message_bytes

    def admit(self, cls: type[Event]) -> None:
        """Get ready for a class of events.

        Raises `ConfigurationError` where it can't be serialised, and where a handler of this app would miss it: its
        subscription was made of the classes that were defined at the start.
        """
        if cls in self._entries:
            return
        entry = entry_of(cls)
        base = next((base for base in cls.__mro__ if base in self._handled), None)
        if base is not None:
            handler = self._handled[base]
            text = f"{show(cls)} was published, and was not defined when the app started: {handler.name}, which handles"
            text = f"{text} {show(base)}, would miss it"
            remedy = f"import {cls.__module__} before the app starts, or start the app again"
            raise ConfigurationError([Problem("late-event", text, remedy, handler.place)])
        self._entries[cls] = entry

    def wire_name(self, cls: type[Event]) -> str:
        """What a class of events is called on the wire."""
        return self._entries[cls].contract.name

    def encode(self, events: Sequence[Event], published: bool) -> list[Outgoing]:
        """Make messages of events, caused by the message of the context, or about themselves if ``published``.

        Raises `MessageTooLargeError`, and what a codec raises for values that it can't carry.
        """
        context = current.get()
        assert context is not None, "plans that send set a context"
        cause = context.causation_id if published else context.message_id
        first = context.message_id if published and len(events) == 1 else None
        correlation, headers = context.correlation_id, context.headers
        return [self.seal(event, first or new_id(), cause, correlation, headers) for event in events]

    def seal(
        self, event: Event, event_id: str, cause: str | None, correlation: str, headers: Mapping[str, str]
    ) -> Outgoing:
        """Make the message of one event."""
        entry = self._entries[type(event)]
        contract = entry.contract
        key = None if contract.key is None else getattr(event, contract.key)
        message = Outgoing(
            entry.topic,
            Envelope(
                specversion="1.0",
                id=event_id,
                source=self._source,
                type=contract.name,
                time=datetime.now(timezone.utc),
                partitionkey=None if key is None else str(key),
                traceparent=headers.get("traceparent") if headers else None,
                tracestate=headers.get("tracestate") if headers else None,
                diatorkind=entry.kind,
                diatorversion=contract.version,
                diatorcorrelation=correlation,
                diatorcausation=cause,
                diatorheaders=_own(headers) if headers else None,
                data=msgspec.Raw(entry.codec.encode(event)),
            ),
        )
        size = len(message.structured)  # encoded here: what can't be must fail the unit, not the sending after it
        if self._limit is not None and size > self._limit:
            raise MessageTooLargeError(f"{type(event).__qualname__} {event_id}", size, self._limit)
        return message

    async def publish(self, events: Sequence[Event]) -> None:
        """Send events that no command has raised. Those of one call have one correlation."""
        cause, correlation, headers = None, None, NO_HEADERS
        context = current.get()
        if context is not None:
            cause, correlation = context.message_id, context.correlation_id
            headers = traced(None, context.headers)
        messages: list[Outgoing] = []
        for event in events:
            event_id = new_id()
            correlation = correlation or event_id
            messages.append(self.seal(event, event_id, cause, correlation, headers))
        await self.send(messages, events)

    async def send(self, messages: Sequence[Outgoing], events: Sequence[Event]) -> None:
        """Hand messages to the broker, which a cancel does not interrupt. Raises `PublishError`."""
        context = current.get()
        inside = context is not None and context.subscription is not None
        began = time.monotonic()
        try:
            if self.creations:
                await shielded(self._send_when_created(messages, wait_for_room=not inside))
            else:
                await self.broker.publish(messages, timeout=self.timeout, wait_for_room=not inside)
        except NotPublishedError as error:
            raise publish_error(error, messages, events) from error
        if self.telling.hears("published"):
            self.telling.tell("published", Published(messages, time.monotonic() - began))

    async def _send_when_created(self, messages: Sequence[Outgoing], *, wait_for_room: bool) -> None:
        left = await self.creations.wait(messages, self.timeout)
        await self.broker.publish(messages, timeout=left, wait_for_room=wait_for_room)


def publish_error(error: NotPublishedError, messages: Sequence[Outgoing], events: Sequence[Event]) -> PublishError:
    """Tell in events what a broker tells in messages."""
    of = {message.id: event for message, event in zip(messages, events, strict=True)}
    unsent, unknown = (
        [of[message.id] for message in part if message.id in of] for part in (error.unsent, error.unknown)
    )
    cause = error.__cause__
    refused = cause is not None and not isinstance(cause, BrokerUnavailableError)
    return PublishError(unsent, unknown, str(cause or ""), refused=refused)


def _own(headers: Mapping[str, str]) -> str | None:
    """The headers of the sender as JSON."""
    own = {name: value for name, value in headers.items() if name not in TRACE}
    return msgspec.json.encode(own).decode() if own else None
