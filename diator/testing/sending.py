"""Sending, watched: which message each brokered event has become, and which of them the broker has taken."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any

from diator._keys import Key
from diator.context import Context
from diator.engine.events import EventPublisher, EventSender
from diator.engine.unit import Delay, SendingUnit
from diator.errors import NotPublishedError
from diator.messages import Event
from diator.testing.activity import Activity
from diator.testing.entries import Entry


class SeenSending:
    """A `diator.engine.events.EventSender` that writes down what another one does.

    With ``at_once``, events that were published with a delay leave without it.
    """

    def __init__(self, sender: EventSender, activity: Activity, *, at_once: bool) -> None:
        self._sender = sender
        self._activity = activity
        self._at_once = at_once

    @property
    def keys(self) -> Collection[Key]:
        """What it resolves from the unit."""
        return self._sender.keys

    @property
    def begin(self) -> Callable[[Any, SendingUnit], Awaitable[bool]] | None:
        """What runs before anything else inside the unit."""
        return self._sender.begin

    def admit(self, cls: type[Event], /) -> None:
        """Get ready for a class of events."""
        self._sender.admit(cls)

    def collect(
        self, unit: SendingUnit, event: Event, after: Delay | None, headers: Mapping[str, str] | None, /
    ) -> None:
        """Take over an event. The unit of a watched handler has written it down."""
        self._sender.collect(unit, event, after, headers)

    async def hand_over(self, unit: SendingUnit, /) -> None:
        """Seal what is outbound, and note what its handlers will get."""
        for outbound in unit.outbound if self._at_once else ():
            outbound.after = None
        await self._sender.hand_over(unit)
        for outbound in unit.outbound:
            self._activity.sealed(outbound, _context_of(outbound.message, unit.context))

    async def send(self, unit: SendingUnit, /) -> None:
        """Hand messages to the broker. They are waited for from now on: they may be handled before this returns."""
        messages = [outbound.message for outbound in unit.outbound]
        for message in messages:
            self._activity.leaves(message)
        try:
            await self._sender.send(unit)
        except BaseException as error:
            lost = _not_sent(error, messages)
            for message in lost:
                self._activity.stays(message, error)
            self._took([message for message in messages if message not in lost])
            raise
        self._took(messages)

    def _took(self, messages: Sequence[Any]) -> None:
        for message in messages:
            self._activity.left(message)


class SeenPublishing(SeenSending):
    """The same of a `diator.engine.events.EventPublisher`.

    ``entries`` are those of the events of the ``app.publish`` that runs.
    """

    def __init__(
        self,
        sender: EventPublisher,
        activity: Activity,
        entries: Callable[[Sequence[Event]], Sequence[Entry]],
        *,
        at_once: bool,
    ) -> None:
        super().__init__(sender, activity, at_once=at_once)
        self._publisher = sender
        self._entries = entries

    def collect_published(self, unit: SendingUnit, events: Sequence[Event], after: Delay | None, /) -> None:
        """Take over the events of one ``app.publish``, which are written down already."""
        self._publisher.collect_published(unit, events, after)
        for outbound, entry in zip(unit.outbound, self._entries(events), strict=True):
            self._activity.took_over(outbound, entry)


def _context_of(message: Any, context: Context) -> Context:
    """The context that a message has for those who handle it, but for what is known when it is delivered."""
    return Context(
        message_id=message.id,
        correlation_id=context.correlation_id,
        causation_id=message.envelope.diatorcausation,
        headers=context.headers,
        time=message.envelope.time,
    )


def _not_sent(error: BaseException, messages: Sequence[Any]) -> list[Any]:
    """Those that did not leave, or of which nobody knows."""
    failed = error.__cause__
    if isinstance(failed, NotPublishedError):
        lost = {message.id for message in (*failed.unsent, *failed.unknown)}
        return [message for message in messages if message.id in lost]
    # Publishing goes to its end before a cancel is raised.
    return [] if isinstance(error, asyncio.CancelledError) else list(messages)
