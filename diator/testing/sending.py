"""Sending, watched: which message each brokered event has become, and which of them the broker has taken."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from diator.context import Context, current
from diator.engine.events import Publishing, Sending
from diator.errors import NotPublishedError
from diator.messages import Event
from diator.testing.activity import Activity
from diator.testing.entries import Entry


class SeenSending:
    """A `diator.engine.events.Sending` that writes down what another one does.

    ``entries`` gives those of the events that leave the unit of work which ends here.
    """

    def __init__(
        self, sending: Sending, activity: Activity, entries: Callable[[Sequence[Event]], Sequence[Entry]]
    ) -> None:
        self._sending = sending
        self._activity = activity
        self._entries = entries

    def admit(self, cls: type[Event], /) -> None:
        """Get ready for a class of events."""
        self._sending.admit(cls)

    def encode(self, events: Sequence[Event], published: bool, /) -> Sequence[Any]:
        """Make messages of events, and note which is which."""
        messages = self._sending.encode(events, published)
        context = current.get()
        assert context is not None, "plans that send set a context"
        for message, entry in zip(messages, self._entries(events), strict=True):
            entry.context = _context_of(message, context)
            self._activity.encoded(message, entry)
        return messages

    async def send(self, messages: Sequence[Any], events: Sequence[Event], /) -> None:
        """Hand messages to the broker. They are waited for from now on: they may be handled before this returns."""
        for message in messages:
            self._activity.leaves(message)
        try:
            await self._sending.send(messages, events)
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
    """The same of a `diator.engine.events.Publishing`."""

    def __init__(
        self, sending: Publishing, activity: Activity, entries: Callable[[Sequence[Event]], Sequence[Entry]]
    ) -> None:
        super().__init__(sending, activity, entries)
        self._publishing = sending

    async def publish(self, events: Sequence[Event], /) -> None:
        """Do what an app that nobody watches does, in fewer steps; one that is watched takes all of them."""
        await self._publishing.publish(events)


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
