"""Activity: what goes over the broker, what becomes of it, and what has not ended yet."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from diator.brokers.port import Ack, MoveToDeadLetters
from diator.context import NO_HEADERS, Context
from diator.hooks import DeadLettered, Handled, Hooks, Settled, Stored
from diator.messages import Message
from diator.testing.entries import Entry, short_repr

if TYPE_CHECKING:
    from diator.brokers.envelope import OutgoingMessage
    from diator.delivery.catalog import ConsumerConfig

DeliveryKey = tuple[str, str]
"""From a message, by its id, to one subscription."""

_LOST = MoveToDeadLetters("lost: it failed, and this broker delivers at most once")


class ActivityTracker(Hooks):
    """Follows brokered events from the handler that raises them to the outcome of each handler that gets them.

    An app knows what it has published before it leaves, and hears from its worker what was settled. In between a
    message is on its way to every subscription that handles its type, through all its retries.
    """

    def __init__(self, entries: list[Entry]) -> None:
        self.failed: list[Entry] = []
        """The dead letters of what this app has published, in the order in which they came about."""
        self._entries = entries
        self._configs: dict[str, ConsumerConfig] = {}
        self._published: dict[str, Entry] = {}
        self._taken: set[str] = set()
        self._stored: set[str] = set()
        """The messages that are or were in the outbox, by their ids."""
        self._rows: dict[str, Entry] = {}
        """Those of them that this app has stored, and no relay has published yet."""
        self._sending: set[str] = set()
        """The messages that were published, and not reported as stored before."""
        self._deduplicates = False
        self._on_the_way: Counter[DeliveryKey] = Counter()
        self._runs: dict[DeliveryKey, Entry] = {}
        self._errors: dict[DeliveryKey, BaseException | None] = {}
        self._dead_lettered: dict[DeliveryKey, MoveToDeadLetters] = {}
        self._calls: dict[int, Entry] = {}
        self._waiting: set[asyncio.Future[None]] = set()
        self.when_changed: Callable[[], None] = _nothing
        """Called when something has ended, and when waiting begins."""
        self.when_expected: Callable[[Sequence[OutgoingMessage]], None] = _nothing
        """Called with what is stored or published."""

    def consumes(self, configs: Iterable["ConsumerConfig"], *, deduplicates: bool) -> None:
        """Learn who gets what over the broker, and whether that drops a message with an id that it had already."""
        self._configs.update((one.name, one) for one in configs)
        self._deduplicates = deduplicates

    def forget(self, configs: Iterable["ConsumerConfig"]) -> None:
        """Expect nothing more for subscriptions whose session has ended."""
        gone = {one.name for one in configs}
        self._configs = {name: one for name, one in self._configs.items() if name not in gone}
        self._on_the_way = Counter({way: count for way, count in self._on_the_way.items() if way[1] not in gone})
        self._wake()

    # What the app does

    def begin(self, entries: Iterable[Entry]) -> None:
        """Count what is sent or published as under way, until `end`."""
        self._calls.update((id(entry), entry) for entry in entries)

    def end(self, entries: Iterable[Entry]) -> None:
        """Count it no longer."""
        for entry in entries:
            del self._calls[id(entry)]
        self._wake()

    def is_published(self, message_id: str, entry: Entry) -> None:
        """Learn which message an event will be. One that is tried again may have the id of the first try."""
        self._published[message_id] = entry

    def stored(self, details: Stored, /) -> None:
        """Expect messages that are committed, from now on: a relay will publish them.

        It may have published some already: they are committed before this is called.
        """
        stored = [message for message in details.messages if message.id not in self._sending]
        self._sending.difference_update(message.id for message in details.messages)
        self.expect(stored, details.context)
        self._stored.update(message.id for message in details.messages)
        for message in stored:
            entry = self._published.get(message.id)
            if entry is not None and is_own(entry):
                self._rows[message.id] = entry

    def cancelled(self, message_id: str, *, in_time: bool) -> bool:
        """Expect a message no longer that was cancelled in time, and tell whether it was."""
        if in_time and self._rows.pop(message_id, None) is not None:
            self._on_the_way = Counter({way: count for way, count in self._on_the_way.items() if way[0] != message_id})
            self._wake()
        return in_time

    def expect(self, messages: "Sequence[OutgoingMessage]", context: Context | None) -> None:
        """Expect messages at every subscription that handles them."""
        self.when_expected(messages)
        for message in messages:
            self._expect(message, context)

    def leaves(self, messages: "Sequence[OutgoingMessage]", context: Context | None) -> None:
        """Expect messages that are passed to the broker from now on."""
        self.expect(messages, context)
        self._sending.update(message.id for message in messages if message.id not in self._stored)

    def _expect(self, message: "OutgoingMessage", context: Context | None) -> None:
        entry = self._published.get(message.id)
        if entry is None or message.id in self._stored:
            return  # of a worker that was started before the app was watched, or expected already
        entry.context, entry.error = _context_of(message, context), None
        dropped = self._deduplicates and message.id in self._taken
        if is_own(entry) and not dropped:
            self._on_the_way.update(self._ways(message))

    def not_sent(self, message: "OutgoingMessage", error: BaseException, *, rejected: bool) -> None:
        """Expect it no longer: it did not leave. What is stored will, unless the broker has ``rejected`` it."""
        if message.id in self._stored and not rejected:
            return
        self._sending.discard(message.id)
        self._rows.pop(message.id, None)
        if message.id in self._published:
            self._published[message.id].error = error
            for way in self._ways(message):
                self._arrived(way)

    def sent(self, message: "OutgoingMessage") -> None:
        """Note that the broker has taken it."""
        if self._rows.pop(message.id, None) is not None:
            self._wake()
        if message.id in self._published:
            self._published[message.id].done = True
            self._taken.add(message.id)

    def _ways(self, message: "OutgoingMessage") -> Iterator[DeliveryKey]:
        for one in self._configs.values():
            if message.envelope.type in one.entries and message.topic in {
                topic.name for topic in one.subscription.topics
            }:
                yield message.id, one.name

    def message_of(self, message_id: str) -> Message | None:
        """The event that a message was made of, if the app has published it."""
        entry = self._published.get(message_id)
        return None if entry is None else entry.message

    def delivery_before(self, message_id: str) -> DeliveryKey | None:
        """The delivery whose handler has published a message, directly or through commands that it has sent."""
        entry = self._published.get(message_id)
        while entry is not None:
            if entry.kind == "handled" and entry.context is not None:
                return _way(entry.context)
            entry = entry.cause
        return None

    def expects(self, way: DeliveryKey) -> bool:
        """Whether a message is on its way to a subscription."""
        return way in self._on_the_way

    def expect_again(self, way: DeliveryKey) -> None:
        """Expect another delivery of a message: it is acknowledged, and is redelivered regardless."""
        self._on_the_way[way] += 1

    # What its worker does

    def cause_of(self, context: Context) -> Entry | None:
        """The entry of a message that is delivered; none if another process published it."""
        return self._published.get(context.message_id)

    def runs(self, run: Entry, context: Context) -> None:
        """Note that a handler has begun on a delivery."""
        self._runs[_way(context)] = run

    def handled(self, details: Handled, /) -> None:
        """Note what became of a delivery, as far as its handler does not tell.

        It may have failed before its handler began, after that had returned, or in time; and a worker may have handled
        it that was started before the app was watched.
        """
        way, error = _way(details.context), details.error
        self._errors[way] = error
        run = self._runs.get(way)
        if run is None or run.attempt != details.context.attempt:
            by, cause = self._configs[details.subscription].registration, self.cause_of(details.context)
            run = Entry("handled", details.event, by, cause, error=error, done=True, context=details.context)
            self._entries.append(run)
            self._runs[way] = run
        elif error is not None and (run.error is None or isinstance(error, TimeoutError)):
            run.error = error

    def dead_lettered(self, details: DeadLettered, /) -> None:
        """Note why a message will be a dead letter, for brokers that have none."""
        if details.context is not None:
            self._dead_lettered[_way(details.context)] = details.failure

    def settled(self, details: Settled, /) -> None:
        """Note that a message is done with, for one subscription."""
        if details.message_id is None or details.lease_lost or not isinstance(details.outcome, Ack | MoveToDeadLetters):
            return
        way = (details.message_id, details.subscription)
        failure = self._dead_lettered.pop(way, None) or (_LOST if self._errors.get(way) is not None else None)
        self._errors.pop(way, None)
        if failure is not None:
            self._dead_letter(way, failure)
        self._arrived(way)

    def _dead_letter(self, way: DeliveryKey, failure: MoveToDeadLetters) -> None:
        cause = self._runs.get(way) or self._published.get(way[0])
        if cause is None:
            return  # from another process, and unreadable
        by = self._configs[way[1]].registration
        letter = Entry("dead-lettered", cause.message, by, cause, done=True, failure=failure)
        letter.error = cause.error
        self._entries.append(letter)
        if is_own(letter):
            self.failed.append(letter)

    def _arrived(self, way: DeliveryKey) -> None:
        if self._on_the_way[way] > 1:
            self._on_the_way[way] -= 1
        else:
            del self._on_the_way[way]
        self._wake()

    # Waiting

    @property
    def is_idle(self) -> bool:
        """Whether nothing that this app has begun is under way."""
        return not self._on_the_way and not self._rows and not any(map(is_own, self._calls.values()))

    @property
    def is_awaited(self) -> bool:
        """Whether the test waits until nothing is under way."""
        return bool(self._waiting)

    def count(self, counts: Callable[[DeliveryKey], bool]) -> int:
        """Count what is under way: calls, rows of the outbox, and the deliveries that ``counts`` says."""
        ways = sum(number for way, number in self._on_the_way.items() if counts(way))
        return ways + len(self._rows) + sum(map(is_own, self._calls.values()))

    async def idle(self, seconds: float) -> bool:
        """Wait until nothing is under way; false where that takes longer."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        await asyncio.sleep(0)  # what a handler has left to a task of its own begins now
        while not self.is_idle:
            change: asyncio.Future[None] = loop.create_future()
            self._waiting.add(change)
            self.when_changed()
            await asyncio.wait({change}, timeout=max(0.0, deadline - loop.time()))
            self._waiting.discard(change)
            if not change.done():
                return False
            await asyncio.sleep(0)
        return True

    def _wake(self) -> None:
        self.when_changed()
        if self._waiting and self.is_idle:
            for change in self._waiting:
                if not change.done():
                    change.set_result(None)

    def unfinished(self) -> Iterator[str]:
        """Tell what is under way, each thing in a few words."""
        for entry in filter(is_own, self._calls.values()):
            yield f"{short_repr(entry.message)} is still being {entry.kind}"
        for entry in self._rows.values():
            yield f"{short_repr(entry.message)} is in the outbox, and no relay has published it"
        for way in self._on_the_way:
            if way[0] not in self._rows:
                yield self._where(way)

    def _where(self, way: DeliveryKey) -> str:
        handler, message = self._configs[way[1]].registration.name, short_repr(self._published[way[0]].message)
        run = self._runs.get(way)
        if run is None:
            return f"{message} has not been delivered to {handler}"
        if not run.done:
            return f"{handler} is still running on {message}, attempt {run.attempt}"
        if run.error is not None:
            return f"{message} waits to be tried again by {handler}, after attempt {run.attempt}"
        return f"{handler} has handled {message}, which is not acknowledged yet"


def _nothing(*_: object) -> None:
    """Do nothing: there is no listener."""


def is_own(entry: Entry) -> bool:
    """Whether the app itself has begun what led to an entry, and no message from elsewhere."""
    while entry.cause is not None:
        entry = entry.cause
    return entry.kind != "handled"


def _context_of(message: "OutgoingMessage", context: Context | None) -> Context:
    """The context that a message has for those who handle it, but for what is known when it is delivered."""
    envelope = message.envelope
    return Context(
        message_id=message.id,
        correlation_id=envelope.diatorcorrelation or message.id,
        causation_id=envelope.diatorcausation,
        headers=NO_HEADERS if context is None else context.headers,
        published_at=envelope.time,
    )


def _way(context: Context) -> DeliveryKey:
    assert context.subscription is not None
    return context.message_id, context.subscription
