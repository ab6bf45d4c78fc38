"""Cases: receivers that leave, in any way and in any state, strand nothing."""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Literal, NamedTuple

import pytest
from hypothesis import HealthCheck, Phase, given, settings, strategies

from diator.brokers.envelope import OutgoingMessage
from diator.brokers.port import (
    ACK,
    RELEASE,
    Broker,
    BrokerCapability,
    Delivery,
    Receiver,
    RetryAfter,
    Settlement,
    Subscription,
)
from diator.errors import BrokerError, BrokerUnavailableError, NotPublishedError
from diator_conformance.brokers.bench import BrokerOptions, BrokerSuiteBase, seeded
from diator_conformance.brokers.messages import envelope_of, message, number
from diator_conformance.overriding import own_case

SAFE = BrokerCapability.ACKNOWLEDGED | BrokerCapability.CONSUMER_GROUPS
LARGE = 150
"""More than a plugin reads at a time."""
TRIES = 100
PAUSE = 0.05
"""How often a call is made again after connections were cut, and after how many seconds."""


class Life(NamedTuple):
    """What is published, and a receiver that takes some of it and leaves."""

    backlog: int
    """How many messages are published before."""
    keys: int
    """Over how many keys they are spread; 0: they have none."""
    limit: int
    """How many the receiver asks for at a time."""
    rounds: int
    """How often it asks."""
    settles: Literal["nothing", "first", "half", "retry", "all"]
    """What it settles of each batch: "retry" is a retry of the first, and the others are released."""
    leaves: Literal["closes", "dies", "is cancelled and closes", "is cancelled and dies", "is cut off"]
    """How it ends. One that dies is never heard of again."""


class Lives:
    """Receivers that live one after the other, and the messages that must be delivered when all of them have left."""

    def __init__(self, bench: BrokerSuiteBase, subscription: Subscription, broker: Broker) -> None:
        self.bench = bench
        self.subscription = subscription
        self.broker = broker
        self.count = 0
        self.open: set[int] = set()
        """Confirmed, and certainly not settled permanently."""

    async def live(self, life: Life) -> None:
        """Publish, receive, settle, and leave."""
        await self.publish(life.backlog, life.keys)
        receiver = await self.receiver()
        for _ in range(life.rounds):
            taken = await self.look(receiver, life.limit)
            await self.settle(receiver, _settlements(taken, life.settles))
        await self.leave(receiver, life)

    async def publish(self, count: int, keys: int) -> None:
        """Publish so many, in batches; keys have the same names in each life."""
        new = range(self.count, self.count + count)
        self.count += count
        topic = self.bench.topic()
        for first in range(0, count, 100):
            some = new[first : first + 100]
            batch = [message(at, topic, f"key {at % keys}" if keys else None) for at in some]
            await self.store(batch)

    async def store(self, batch: Sequence[OutgoingMessage]) -> None:
        """Publish a batch; where the connection is broken, what surely did not leave is published again."""
        left, tries = batch, 0
        while left:
            tries += 1
            try:
                await self.broker.publish(left, timeout=self.bench.receive_timeout)
                failed = NotPublishedError(())
            except NotPublishedError as error:
                assert tries < TRIES, "publishing fails, though only connections were cut"
                failed = error
                await asyncio.sleep(PAUSE)
            not_confirmed = {int(one.id) for one in (*failed.unsent, *failed.unknown)}
            self.open.update({int(one.id) for one in left} - not_confirmed)
            left = failed.unsent

    async def receiver(self) -> Receiver:
        """Open a receiver, as soon as the broker can be reached."""
        for _ in range(TRIES):
            with suppress(BrokerUnavailableError):
                return await self.bench.receiver(self.subscription)
            await asyncio.sleep(PAUSE)
        return await self.bench.receiver(self.subscription)

    async def look(self, receiver: Receiver, limit: int) -> Sequence[Delivery]:
        """Receive once if something comes soon: what a dead receiver had may not be free yet."""
        with suppress(asyncio.TimeoutError, BrokerUnavailableError):
            return await asyncio.wait_for(receiver.receive(limit), 2 * self.bench.quiet_period)
        return ()

    async def settle(self, receiver: Receiver, settlements: Sequence[Settlement]) -> set[int]:
        """Settle, again while the broker can't be reached, and give the numbers of those whose lease was lost.

        An acknowledged message need not be redelivered, though it may be if the connection broke: a message that is
        reported as lost must be redelivered only if the loss was reported immediately.
        """
        if not settlements:
            return set()
        acknowledged = {number(delivery) for delivery, outcome in settlements if outcome is ACK}
        self.open -= acknowledged
        for tries in range(TRIES):
            try:
                lost = {number(delivery) for delivery in await receiver.settle(settlements)}
            except BrokerUnavailableError:
                await asyncio.sleep(PAUSE)
                continue
            self.open |= set() if tries else lost & acknowledged
            return lost
        raise AssertionError("settling fails, though only connections were cut")

    async def leave(self, receiver: Receiver, life: Life) -> None:
        """End a receiver."""
        if "cancelled" in life.leaves:
            task = asyncio.ensure_future(receiver.receive(life.limit))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
        if life.leaves == "is cut off":
            await self.cut_off(receiver, life)
        if "dies" not in life.leaves or self.broker.lease is None:
            await receiver.aclose()

    async def cut_off(self, receiver: Receiver, life: Life) -> None:
        """Lose the connection while it receives and settles, if the author can cut connections."""
        taken = await self.look(receiver, life.limit)
        calls: list[Any] = [
            self.look(receiver, life.limit),
            self.settle(receiver, _settlements(taken, "all")),
            *([self.bench.cut_connections()] if self.bench.can_cut else []),
        ]
        for found in await asyncio.gather(*calls, return_exceptions=True):
            if isinstance(found, BaseException) and not isinstance(found, BrokerError):
                raise found

    async def all_is_handed_out(self, receivers: int, limit: int) -> None:
        """See that everything comes, in order by key, with nothing new published."""
        last = [await self.receiver() for _ in range(receivers)]
        done: defaultdict[str | None, list[int]] = defaultdict(list)
        while self.open:
            for receiver, batch in zip(last, await self.next(last, limit), strict=True):
                lost = await self.settle(receiver, [(delivery, ACK) for delivery in batch])
                for delivery in batch:
                    if number(delivery) not in lost:
                        done[envelope_of(delivery).partitionkey].append(number(delivery))
        if self.subscription.ordered:
            assert all(done[key] == sorted(done[key]) for key in done if key), f"out of order: {dict(done)}"

    async def next(self, receivers: Sequence[Receiver], limit: int) -> list[list[Delivery]]:
        """Give what comes next. What the dead had comes when their leases end."""
        for _ in range(TRIES):
            try:
                return await self.bench.take_from(receivers, 1, limit=limit)
            except BrokerUnavailableError:
                await asyncio.sleep(PAUSE)
            except pytest.fail.Exception:
                break
        text = f"{len(self.open)} of {self.count} messages were never delivered: {sorted(self.open)[:20]}"
        raise AssertionError(text)


def _settlements(taken: Sequence[Delivery], what: str) -> list[Settlement]:
    if what == "retry":
        return [(one, RELEASE if at else RetryAfter(0.0)) for at, one in enumerate(taken)]
    count = {"nothing": 0, "first": 1, "half": len(taken) // 2, "all": len(taken)}[what]
    return [(one, ACK) for one in taken[:count]]


KNOWN = (
    # A single message of one key is released, then another key has a large backlog. And the reverse.
    [Life(2, 2, 10, 1, "nothing", "closes"), Life(LARGE, 1, 1, 0, "nothing", "closes")],
    [Life(LARGE, 1, 100, 1, "nothing", "closes"), Life(3, 3, 100, 1, "nothing", "closes")],
    [Life(30, 30, 100, 1, "nothing", "dies"), Life(LARGE, 2, 64, 1, "half", "dies")],
    [Life(30, 0, 100, 1, "retry", "is cancelled and dies"), Life(LARGE, 30, 100, 1, "first", "is cut off")],
)
"""Lives that have stranded messages before, tried besides the random ones."""


class Leaving(BrokerSuiteBase):
    """Receivers that leave, in any way and in any state, strand no messages."""

    @pytest.mark.parametrize("ordered", [False, True], ids=["unordered", "ordered"])
    @own_case
    def test_nothing_is_stranded_when_receivers_leave(self, ordered: bool) -> None:
        """All confirmed messages are delivered soon, without publishing more, however receivers have left.

        They close, die, are cancelled or lose their connection half-way; backlogs and limits have any size.
        """
        sizes = strategies.sampled_from([1, 2, 5, 40, 64, 65, LARGE])
        life = strategies.builds(
            Life,
            backlog=sizes,
            keys=strategies.sampled_from([0, 1, 2, 20]),
            limit=strategies.sampled_from([1, 3, 64, 100, 1000]),
            rounds=strategies.integers(0, 2),
        )
        phases = [Phase.generate, *([Phase.shrink] if self.shrink else [])]

        @settings(
            phases=phases,
            max_examples=self.lives,
            deadline=None,
            database=None,
            derandomize=not self.seed,
            suppress_health_check=[HealthCheck.too_slow],
        )
        @seeded(self.seed)
        @given(
            lives=strategies.lists(life, min_size=1, max_size=4),
            receivers=strategies.integers(1, 2),
            limit=strategies.sampled_from([1, 64, 100, 1000]),
        )
        def check(lives: Sequence[Life], receivers: int, limit: int) -> None:
            self._play_lives(lives, receivers, limit, ordered=ordered)

        for known in KNOWN:
            self._play_lives(known, 1, 100, ordered=ordered)
        check()

    def _play_lives(self, lives: Sequence[Life], receivers: int, limit: int, *, ordered: bool) -> None:
        needs = SAFE | BrokerCapability.ORDER_BY_KEY if ordered else SAFE
        self.play(lambda: self._live(lives, receivers, limit, ordered), needs, BrokerOptions(lease=self.short_lease))

    async def _live(self, lives: Sequence[Life], receivers: int, limit: int, ordered: bool) -> None:
        subscription = self.subscription(ordered=ordered)
        play = Lives(self, subscription, await self.given(subscription))
        for life in lives:
            await play.live(life)
        await play.all_is_handed_out(receivers, limit)
