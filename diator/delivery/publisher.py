"""Publishing: brokered events become messages inside the unit of work, and leave when it has closed well."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import nullcontext
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

import msgspec

from diator._headers import sealed_headers
from diator._hooks import HookDispatcher
from diator._keys import Key
from diator._locations import caller, location_in_frame
from diator._misuse import ensure_loop
from diator.brokers.envelope import Envelope, OutgoingMessage
from diator.brokers.port import BrokerCapability
from diator.context import TRACE, Context, current_context, new_id
from diator.delivery.catalog import Catalog, describe_event
from diator.delivery.codec import ENCODABLE
from diator.delivery.connection import Connection
from diator.delivery.error_texts import described, text_of
from diator.delivery.unsubscribed import UnsubscribedTopics
from diator.engine.arguments import fits
from diator.engine.hints import format_hint
from diator.engine.outbound import Outbound, SendingUnit
from diator.engine.unit import Delay
from diator.errors import (
    BrokerError,
    BrokerUnavailableError,
    ConfigurationError,
    InvalidMessageError,
    MessageTooLargeError,
    NotPublishedError,
    Problem,
    PublishError,
)
from diator.hooks import Published, Publishing
from diator.messages import Event
from diator.options import DELAY, require

if TYPE_CHECKING:
    from diator.delivery.outbox import Outbox

_UNWRAPPED = nullcontext()


class Publisher:
    """Makes messages of events and hands them to the broker: an `diator.engine.outbound.EventPublisher`."""

    keys: Collection[Key] = ()
    begin = None
    sees_deliveries = False
    cancel: Callable[[SendingUnit, str], Awaitable[bool]] | None = None

    def __init__(
        self, connection: Connection, source: str, catalog: Catalog, timeout: float, hooks: HookDispatcher
    ) -> None:
        self._connection = connection
        self.broker = broker = connection.broker
        self.timeout = timeout
        """Seconds that publishing may take."""
        self.hooks = hooks
        self.loop: asyncio.AbstractEventLoop | None = None
        """The event loop that the broker was opened in, while it is open."""
        self.creations = connection.creations
        self.outbox: Outbox | None = None
        """Where the app stores what it publishes; none for an app without a store."""
        self._unsubscribed = UnsubscribedTopics(broker)
        self._source = source
        self._entries = catalog.event_types
        self._handled = catalog.handled
        self._limit = broker.max_message_bytes

    def prepare(self, cls: type[Event]) -> None:
        """Get ready for a class of events.

        Raises `ConfigurationError` where it can't be serialized, and where a handler of this app would miss it: its
        subscription was made of the classes that were defined at startup.
        """
        if cls in self._entries:
            return
        entry = describe_event(cls)
        base = next((base for base in self._handled if fits(cls, base)), None)
        if base is not None:
            handler = self._handled[base]
            text = (
                f"{format_hint(cls)} was published, and was not defined when the app started: {handler.name}, "
                f"which handles"
            )
            text = f"{text} {format_hint(base)}, would miss it"
            fix = f"import {cls.__module__} before the app starts, or start the app again"
            raise ConfigurationError([Problem("late-event", text, fix, handler.location)])
        self._entries[cls] = entry

    def wire_name(self, cls: type[Event]) -> str:
        """What a class of events is called on the wire."""
        return self._entries[cls].contract.name

    def collect(self, unit: SendingUnit, event: Event, after: Delay | None, headers: Mapping[str, str] | None) -> None:
        """Append an event that a handler published.

        Raises `ConfigurationError` for a delay or headers that make no sense, and if the broker has no delays.
        """
        unit.outbound.append(self.outbound(event, new_id(), after, headers))

    def collect_published(self, unit: SendingUnit, events: Sequence[Event], after: Delay | None) -> None:
        """Append the events of one ``app.publish``. The first has the id of the context, so they all correlate."""
        for number, event in enumerate(events):
            event_id = new_id() if number else unit.context.message_id
            outbound = self.outbound(event, event_id, after, None)
            outbound.caused = False
            unit.outbound.append(outbound)

    def outbound(self, event: Event, event_id: str, after: Delay | None, headers: Mapping[str, str] | None) -> Outbound:
        """Make what a unit of work owns of an event. Raises as `collect` does."""
        sealed = None if headers is None else sealed_headers(headers, "publish")
        seconds = None if after is None else self._seconds(after, event)
        return Outbound(event, event_id, seconds or None, sealed)  # after=0 is no delay: it stays in the order

    def _seconds(self, after: Delay, event: Event) -> float:
        require("publish", {"after": DELAY}, {"after": after})
        if self.outbox is None and BrokerCapability.SCHEDULES not in self.broker.capabilities:
            name, broker = type(event).__qualname__, type(self.broker).__name__
            text = f"{name} was published with after={after!r}, but {broker} can't deliver an event later"
            fix = "publish it without after, give the app a store, or use a broker that can, such as memory://"
            raise ConfigurationError([Problem("no-schedule", text, fix, location_in_frame(caller()))])
        return after.total_seconds() if isinstance(after, timedelta) else after

    async def hand_over(self, unit: SendingUnit) -> None:
        """Seal what is outbound. Raises `MessageTooLargeError`, and what a codec raises for values it can't carry.

        Raises `InvalidMessageError` for a key that can't be encoded.

        Raises `NotRunningError` in another event loop than that of the broker.
        """
        ensure_loop(self.loop, "events were published")
        for outbound in unit.outbound:
            outbound.message = self._seal(outbound, unit.context)

    def _seal(self, outbound: Outbound, context: Context) -> OutgoingMessage:
        event = outbound.event
        entry = self._entries[type(event)]
        contract = entry.contract
        data = msgspec.Raw(entry.codec.encode(event))  # first: it names the field that can't be encoded
        key = None if contract.key is None else _key_of(event, contract.key)
        now, headers = datetime.now(timezone.utc), context.headers
        if outbound.headers:
            headers = {**headers, **outbound.headers}
        message = OutgoingMessage(
            entry.topic,
            Envelope(
                specversion="1.0",
                id=outbound.id,
                source=self._source,
                type=contract.name,
                time=now,
                partitionkey=key,
                traceparent=headers.get("traceparent") if headers else None,
                tracestate=headers.get("tracestate") if headers else None,
                diatorkind=entry.kind,
                diatorversion=contract.version,
                diatorcorrelation=context.correlation_id,
                diatorcausation=context.message_id if outbound.caused else context.causation_id,
                diatorheaders=_own(headers) if headers else None,
                data=data,
            ),
            due=None if outbound.after is None else now + timedelta(seconds=outbound.after),
        )
        size = len(message.structured)  # encoded here: what can't be must fail the unit, not the sending after it
        if self._limit is not None and size > self._limit:
            raise MessageTooLargeError(f"{type(event).__qualname__} {outbound.id}", size, self._limit)
        return message

    async def send(self, unit: SendingUnit) -> None:
        """Hand what is outbound to the broker, which a cancel does not interrupt. Raises `PublishError`."""
        await self.publish(unit.outbound, wait_for_room=unit.context.subscription is None)

    async def publish(self, outbound: Sequence[Outbound], *, wait_for_room: bool) -> None:
        """Hand some events of a unit to the broker. Raises `PublishError`."""
        messages: list[OutgoingMessage] = [one.message for one in outbound]
        wraps = self.hooks.has_listener("publishing")
        publishing = Publishing(messages, current_context.get(), self.broker) if wraps else None
        with self.hooks.wrap("publishing", publishing) if publishing else _UNWRAPPED:
            began = time.monotonic()
            try:
                await self._connection.publish(messages, self.timeout, wait_for_room=wait_for_room)
            except NotPublishedError as error:
                if error.__cause__ is not None:
                    error.__traceback__ = None  # the cause says why, and the frames between would bury it
                raise publish_error(error, outbound) from error
            if self.hooks.has_listener("published"):
                self.hooks.emit("published", Published(messages, time.monotonic() - began))
        if self._unsubscribed.are_new(messages):
            await self._unsubscribed.look(messages)

    async def relay(self, messages: Sequence[OutgoingMessage], timeout: float) -> None:
        """Publish stored messages within this many seconds. Raises `NotPublishedError`."""
        began = time.monotonic()
        with self.hooks.wrap("publishing", Publishing(messages, None, self.broker)):
            await self._connection.publish(messages, timeout, wait_for_room=True)
        self.hooks.emit("published", Published(messages, time.monotonic() - began))
        if self._unsubscribed.are_new(messages):
            await self._unsubscribed.look(messages)


def _key_of(event: Event, field: str) -> str | None:
    """Return what an event is ordered by. Raises `InvalidMessageError` for a text that can't be encoded."""
    value = getattr(event, field)
    key = None if value is None else str(value)
    if key is not None and not key.isascii():
        try:
            key.encode()
        except UnicodeEncodeError as error:
            text = f"{type(event).__qualname__}.{field} can't be the key of its event: {key!r} has a lone surrogate"
            raise InvalidMessageError(f"{text}; {ENCODABLE}") from error
    return key


def publish_error(error: NotPublishedError, outbound: Sequence[Outbound]) -> PublishError:
    """Tell in events what a broker tells in messages."""
    of = {one.id: one.event for one in outbound}
    unsent, unknown = (
        [of[message.id] for message in part if message.id in of]
        for part in ((*error.unsent, *error.rejected), error.unknown)
    )
    cause = error.__cause__
    permanent = cause is not None and not isinstance(cause, BrokerUnavailableError)
    return PublishError(unsent, unknown, _reason(cause), permanent=permanent)


def _reason(cause: BaseException | None) -> str:
    """What is said of a cause: errors of Diator explain themselves, others are named."""
    if cause is None:
        return ""
    return text_of(cause) if isinstance(cause, BrokerError) else described(cause)


def _own(headers: Mapping[str, str]) -> str | None:
    """The headers of the sender as JSON."""
    own = {name: value for name, value in headers.items() if name not in TRACE}
    return msgspec.json.encode(own).decode() if own else None
