"""Operations on the subscriptions and dead letters of an app, which does not need to run."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Collection, Iterable, Sequence
from datetime import datetime, timedelta, timezone
from typing import NamedTuple, TypeVar

from typing_extensions import Self

from diator._misuse import AsyncOnly
from diator.brokers.envelope import Envelope, parse_envelope
from diator.brokers.port import (
    BrokerCapability,
    DeadLetter,
    KeepsDeadLetters,
    ManagesSubscriptions,
    SubscriptionStatus,
    Topic,
)
from diator.delivery.catalog import ConsumerConfig
from diator.delivery.connection import Connection, translated
from diator.engine.registrations import name_of
from diator.errors import BrokerError, BrokerUnavailableError, ConfigurationError, Problem, UnreadableMessageError

T = TypeVar("T")

_MANY_ANSWERS = 12
"""Timeouts that a call may take that inspects everything at the broker: by default two minutes in total."""


class OpenedDeadLetter(NamedTuple):
    """A dead letter with its parsed envelope."""

    config: ConsumerConfig
    """The configuration of its subscription."""
    dead: DeadLetter
    envelope: Envelope | None
    """None if it cannot be read."""


class DeadLetterFilter(NamedTuple):
    """Selects dead letters: those that match all of these criteria."""

    ids: Collection[str] = ()
    """Ids of dead letters."""
    message_ids: Collection[str] = ()
    """Ids of their events."""
    older_than: timedelta | None = None
    newer_than: timedelta | None = None
    error: str | None = None
    """A part of the exception, as ``module.Class: text``, or of the reason; ignores case."""

    def matches(self, letter: OpenedDeadLetter, now: datetime) -> bool:
        """Return whether a dead letter matches."""
        age = now - letter.dead.dead_lettered_at
        return (
            (not self.ids or letter.dead.id in self.ids)
            and (not self.message_ids or (letter.envelope is not None and letter.envelope.id in self.message_ids))
            and (self.older_than is None or age > self.older_than)
            and (self.newer_than is None or age < self.newer_than)
            and (self.error is None or self._failed_so(letter.dead, self.error.casefold()))
        )

    @staticmethod
    def _failed_so(dead: DeadLetter, text: str) -> bool:
        return any(text in part.casefold() for part in (dead.failure.error, dead.failure.reason) if part)


ALL = DeadLetterFilter()


class Operations(AsyncOnly):
    """The broker of one app, opened with ``async with``; ``timeout`` limits each of its answers, in seconds.

    Raises `BrokerUnavailableError` if it is unavailable, and `BrokerError` if it rejects a call.
    """

    _how = "async with app.operations() as operations"

    def __init__(
        self, connection: Connection, configs: Sequence[ConsumerConfig], topics: Sequence[Topic], *, timeout: float
    ) -> None:
        self.configs = configs
        """The subscriptions of the app."""
        self._connection = connection
        self._broker = connection.broker
        self._topics = topics
        self._timeout = timeout

    async def __aenter__(self) -> Self:
        try:
            await self._connection.open(self._timeout)
        except BrokerUnavailableError:  # which counts as open
            await self._close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._close()

    async def _close(self) -> None:
        await self._in_time("aclose", self._connection.close())

    async def status(self) -> Sequence[tuple[ConsumerConfig, SubscriptionStatus]]:
        """Return the status of each subscription."""
        found = await self._in_time("status", self._broker.status([one.subscription for one in self.configs]))
        of = {status.name: status for status in found}
        return [(one, of[one.name]) for one in self.configs]

    async def apply(self) -> Sequence[str]:
        """Create missing subscriptions and topics, and return the names of what was created."""
        subscriptions = [one.subscription for one in self.configs]
        return await self._in_time("apply", self._broker.apply(subscriptions, self._topics))

    async def other_subscriptions(self) -> Sequence[SubscriptionStatus]:
        """Return the status of every subscription at the broker that no handler of this app uses.

        Handlers of other apps may use them. Raises `BrokerError` if the broker cannot list them.
        """
        used = [one.subscription for one in self.configs]
        return await self._in_time("other_subscriptions", self._manager.other_subscriptions(used), _MANY_ANSWERS)

    async def remove_subscription(self, name: str) -> bool:
        """Delete a subscription, its messages and its dead letters; return false if it does not exist.

        Stop its workers first, because a running worker may create it again. Raises `ConfigurationError` if a handler
        of this app uses it.
        """
        for one in self.configs:
            if one.name == name:
                raise ConfigurationError([_in_use(one)])
        if name not in {status.name for status in await self.other_subscriptions()}:
            return False
        return await self._in_time("remove_subscription", self._manager.remove_subscription(name), _MANY_ANSWERS)

    async def dead_letters(
        self, of: Iterable[ConsumerConfig] | None = None, wanted: DeadLetterFilter = ALL
    ) -> AsyncGenerator[OpenedDeadLetter, None]:
        """Read dead letters of all subscriptions, or ``of`` some, oldest first in each."""
        keeper, now = self._keeper, datetime.now(timezone.utc)
        for one in self.configs if of is None else of:
            after: str | None = None
            while page := await self._in_time("dead_letters", keeper.dead_letters(one.subscription, after=after)):
                after = page[-1].id
                for dead in page:
                    letter = OpenedDeadLetter(one, dead, _opened(dead))
                    if wanted.matches(letter, now):
                        yield letter

    async def replay(self, letter: OpenedDeadLetter) -> bool:
        """Deliver a dead letter again, to its own subscription only; return false if it no longer exists."""
        replayed = self._keeper.replay(letter.config.subscription, [letter.dead.id])
        return bool(await self._in_time("replay", replayed))

    async def purge(self, letter: OpenedDeadLetter) -> bool:
        """Delete a dead letter permanently; return false if it no longer exists."""
        return bool(await self._in_time("purge", self._keeper.purge(letter.config.subscription, [letter.dead.id])))

    @property
    def can_list(self) -> bool:
        """Whether the broker can list and remove subscriptions."""
        return isinstance(self._broker, ManagesSubscriptions)

    @property
    def _manager(self) -> ManagesSubscriptions:
        if isinstance(self._broker, ManagesSubscriptions):
            return self._broker
        raise BrokerError(f"{type(self._broker).__name__} can neither list nor remove subscriptions")

    @property
    def _keeper(self) -> KeepsDeadLetters:
        broker = self._broker
        if isinstance(broker, KeepsDeadLetters) and BrokerCapability.DEAD_LETTERS in broker.capabilities:
            return broker
        raise BrokerError(
            f"{type(broker).__name__} keeps no dead letters: messages that fail permanently are only logged"
        )

    async def _in_time(self, call: str, answer: Awaitable[T], answers: int = 1) -> T:
        seconds = self._timeout * answers
        try:
            return await asyncio.wait_for(translated(self._broker, call, answer), seconds)
        except asyncio.TimeoutError as error:
            raise BrokerUnavailableError(f"the broker did not answer within {seconds:g} s") from error


def select(configs: Sequence[ConsumerConfig], names: Collection[str]) -> Sequence[ConsumerConfig]:
    """Return the configurations of these subscriptions, or all if none is named.

    Raises `ConfigurationError` for an unknown name, and suggests similar ones.
    """
    known = {one.name: one for one in configs}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ConfigurationError([_no_subscription(name, list(known)) for name in unknown])
    return [known[name] for name in dict.fromkeys(names)] if names else configs


def _no_subscription(name: str, known: list[str]) -> Problem:
    from difflib import get_close_matches  # noqa: PLC0415 - needed for an error only

    close = get_close_matches(name, known) or [one for one in known if one.rpartition(".")[2] == name]
    fix = f"did you mean {' or '.join(map(repr, close))}?" if close else f"there are: {', '.join(known) or 'none'}"
    return Problem("subscription", f"there is no subscription {name!r}", fix)


def _in_use(one: ConsumerConfig) -> Problem:
    text = f"subscription {one.name!r} is used by handler {name_of(one.registration.target)}"
    fix = "remove the handler or change its subscription, stop the workers of the old version, then remove this one"
    return Problem("subscription", text, fix, one.registration.location)


def _opened(dead: DeadLetter) -> Envelope | None:
    try:
        return parse_envelope(dead.headers, dead.body)
    except UnreadableMessageError:
        return None
