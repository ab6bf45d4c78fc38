"""Cases: random programs, run against the broker and against a model of it at the same time."""

import asyncio
from collections.abc import Awaitable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Literal, NamedTuple, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings, strategies

from diator.brokers.port import (
    ACK,
    RELEASE,
    Broker,
    BrokerCapability,
    Delivery,
    MoveToDeadLetters,
    Outcome,
    Receiver,
    RetryAfter,
    Subscription,
)
from diator.errors import BrokerUnavailableError
from diator_conformance.brokers.bench import BrokerOptions, BrokerSuiteBase, keeper, seeded
from diator_conformance.brokers.messages import message, number, number_of
from diator_conformance.overriding import own_case

T = TypeVar("T")

ALL = BrokerCapability.ACKNOWLEDGED | BrokerCapability.CONSUMER_GROUPS | BrokerCapability.DEAD_LETTERS
OUTCOMES: Sequence[Outcome] = (ACK, RELEASE, RetryAfter(0.0), MoveToDeadLetters("rejected"))


class Step(NamedTuple):
    """One step of a program; what a number means depends on what is to be done."""

    do: Literal["publish", "receive", "settle", "close", "replay", "expire", "late"]
    who: int = 0
    what: int = 0


PUBLISHED_AFTER_A_REPLAY = [
    *(Step("publish", 0, 2), Step("receive"), Step("settle", 0, 3), Step("settle", 1, 3)),
    *(Step("replay"), Step("publish", 0, 2), Step("publish", 0, 2), Step("receive"), Step("receive", 1, 3)),
]
"""One message of a key is replayed, and others of the key are published while it waits."""


@dataclass
class Item:
    """A message in the model."""

    number: int
    key: str | None
    holder: int | None = None
    """The receiver that has it."""
    delivery: Delivery | None = None
    done: bool = False
    dead_lettered: bool = False
    replayed: bool = False
    """Whether it waits since a replay, so that what was published later may overtake it."""
    failures: int = 0
    deliveries: int = 0
    closed: int = 0
    """How many receivers were closed while it waited: it may have been on its way to each, which may be counted."""
    undone: int = 0
    """How many receivers were closed whose lease of it had expired: they may have released it, which counts nothing."""

    @property
    def waits(self) -> bool:
        """Whether it waits for delivery."""
        return self.holder is None and not self.done

    def reset(self) -> None:
        """Remove it from its holder."""
        self.holder = self.delivery = None


class Model:
    """What a subscription has to do, message by message."""

    def __init__(self, *, ordered: bool) -> None:
        self.ordered = ordered
        self.items: list[Item] = []
        """In the order in which they are delivered."""
        self.numbers = count()

    def of_key(self, item: Item) -> Iterator[Item]:
        """Those of the same key that are not done, in order; only itself where there is no order."""
        alike = [one for one in self.items if one.key == item.key and not one.done]
        return iter(alike if self.ordered and item.key else [item])

    def must(self) -> list[Item]:
        """Those that one of the receivers, if not each of them, can have at once."""
        waiting = [item for item in self.items if item.waits]
        return [item for item in waiting if next(self.of_key(item)) is item]

    def check_handed_out(self, item: Item, delivery: Delivery, who: int) -> None:
        """See that this receiver may have it now, and that it is counted right."""
        assert item.waits, f"message {item.number} was delivered, though it is {item}"
        self._overtake(item)
        for earlier in self.of_key(item):
            if earlier is item:
                break
            assert earlier.holder == who, f"message {item.number} came before {earlier}"
        item.replayed = False
        item.deliveries += 1
        on_the_way = delivery.deliveries - item.deliveries
        counts = (delivery.failures, delivery.deliveries)
        is_right = delivery.failures == item.failures and -item.undone <= on_the_way <= item.closed
        assert is_right, f"message {item.number} has counts {counts}, not {item}"
        item.deliveries, item.closed, item.undone = delivery.deliveries, 0, 0

    def _overtake(self, item: Item) -> None:
        """Move one that comes now before those that were replayed before it was published, and wait."""
        if item.replayed:
            return
        for earlier in self.of_key(item):
            if earlier is item:
                break
            if earlier.replayed:
                self.items.remove(item)
                self.items.insert(self.items.index(earlier), item)
                break

    def held_by(self, who: int) -> list[Item]:
        """Those that this receiver has to settle, of each key the first only."""
        held = [item for item in self.items if item.holder == who]
        return [item for item in held if next(self.of_key(item)) is item]


class TooSlowError(Exception):
    """Leases may have ended between two steps, so what went wrong says nothing of the broker."""


class Play:
    """A program that runs on a broker, and beside it on the model."""

    def __init__(self, bench: BrokerSuiteBase, subscription: Subscription, broker: Broker) -> None:
        self.bench = bench
        self.subscription = subscription
        self.broker = broker
        self.model = Model(ordered=subscription.ordered)
        self.receivers: list[Receiver] = []
        self.stale: list[tuple[int, Item, Delivery]] = []
        self.renewed = _now()
        self.slow = False

    async def run(self, program: Sequence[Step]) -> None:
        """Run all steps, then handle what is left. Raises `TooSlowError` if leases may have ended meanwhile."""
        try:
            await self._run(program)
        except (AssertionError, pytest.fail.Exception, BrokerUnavailableError) as error:
            self._look_at_the_clock()
            if self.slow:
                raise TooSlowError from error
            raise

    def _look_at_the_clock(self) -> None:
        """Note whether a quarter of a lease has passed since the last renewal began.

        A delivery may come with half a lease, and must last until the next renewal has begun and ended: two quarters.
        """
        now, lease = _now(), self.broker.lease
        self.slow |= lease is not None and now - self.renewed > lease / 4
        self.renewed = now

    async def _run(self, program: Sequence[Step]) -> None:
        self.receivers = [await self.broker.subscribe(self.subscription), await self.bench.receiver(self.subscription)]
        for step in program:
            await self.renew()
            await getattr(self, step.do)(step.who, step.what)
        await self.renew()
        await self.handle_the_rest()
        assert all(item.done for item in self.model.items)
        letters = await self.bench.letters(self.broker, self.subscription)
        assert len(letters) == sum(item.dead_lettered for item in self.model.items)
        await self.bench.nothing_comes(*self.receivers)

    async def publish(self, who: int, what: int) -> None:
        """Publish a batch: one to three messages of keys that vary, some without."""
        sent: list[Item] = []
        for at in range(1 + who + what % 2):
            key = (None, "a", "b", "a")[(what + at) % 4]
            sent.append(Item(next(self.model.numbers), key))
        topic = self.bench.topic()
        await self.broker.publish(
            [message(one.number, topic, one.key) for one in sent], timeout=self.bench.receive_timeout
        )
        self.model.items += sent

    async def receive(self, who: int, what: int) -> None:
        """Receive, where there must be something; with both, since a broker may give a key to one of them only."""
        if not self.model.must():
            return
        receivers = self.receivers if who == 0 else self.receivers[::-1]
        # A broker may take some leases to move a key, and on a busy machine leases are longer.
        patience = max(self.bench.receive_timeout, 5 * (self.broker.lease or 0))
        taken = await self._renewing(self.bench.take_from(receivers, 1, limit=1 + what % 4, timeout=patience))
        for at, deliveries in enumerate(taken):
            for delivery in deliveries:
                self.took(at if who == 0 else 1 - at, delivery)

    async def _renewing(self, taking: Awaitable[T]) -> T:
        """Renew what is held while more is taken: a broker may take longer than a lease to move a key."""
        task, lease = asyncio.ensure_future(taking), self.broker.lease
        while not task.done():
            await asyncio.wait([task], timeout=None if lease is None else lease / 8)
            if not task.done():
                await self.renew()
        return task.result()

    def took(self, who: int, delivery: Delivery) -> None:
        """See that a delivery is right, and note who has it."""
        item = next(one for one in self.model.items if one.number == number(delivery))
        self.model.check_handed_out(item, delivery, who)
        item.holder, item.delivery = who, delivery

    async def settle(self, who: int, what: int) -> None:
        """Settle one of those that a receiver has."""
        held = self.model.held_by(who)
        if held:
            await self.settle_one(who, held[what // len(OUTCOMES) % len(held)], OUTCOMES[what % len(OUTCOMES)])

    async def settle_one(self, who: int, item: Item, outcome: Outcome) -> None:
        """Settle as the engine does: with one that comes back the later ones of its key go back too."""
        back = isinstance(outcome, RetryAfter) or outcome is RELEASE
        followers = [one for one in self.model.of_key(item) if one is not item and one.holder == who] if back else []
        settlements = [(one.delivery, RELEASE) for one in followers if one.delivery]
        assert item.delivery is not None
        lost = await self.receivers[who].settle([(item.delivery, outcome), *settlements])
        assert not lost, "a lease was lost before its time"
        item.failures += isinstance(outcome, RetryAfter)
        item.deliveries -= outcome is RELEASE
        item.dead_lettered = isinstance(outcome, MoveToDeadLetters)
        item.done = not back
        for one in (item, *followers):
            one.deliveries -= one is not item
            one.reset()

    async def close(self, who: int, _: int) -> None:
        """Close a receiver, and open another."""
        await self.receivers[who].aclose()
        for holder, lost, _delivery in self.stale:
            lost.undone += holder == who and lost.waits
        for item in self.model.items:
            if item.holder == who:
                item.deliveries -= 1
                item.reset()
            else:
                item.closed += item.waits
        self.stale = [one for one in self.stale if one[0] != who]
        self.receivers[who] = await self.bench.receiver(self.subscription)

    async def replay(self, *_: int) -> None:
        """Replay a dead letter."""
        for letter in await keeper(self.broker).dead_letters(self.subscription, limit=1):
            item = next(one for one in self.model.items if one.number == number_of(letter))
            assert item.dead_lettered
            assert await keeper(self.broker).replay(self.subscription, [letter.id])
            item.done = item.dead_lettered = False
            item.failures = item.deliveries = item.closed = item.undone = 0
            item.replayed = True
            self.model.items.remove(item)
            self.model.items.append(item)

    async def expire(self, *_: int) -> None:
        """Wait until all leases have run out."""
        if self.broker.lease is None or not any(item.holder is not None for item in self.model.items):
            return
        await self.bench.after_the_lease(self.broker)
        self.renewed = _now()
        for item in self.model.items:
            if item.holder is not None and item.delivery is not None:
                self.stale.append((item.holder, item, item.delivery))
                item.reset()

    async def late(self, *_: int) -> None:
        """Settle a message whose lease was lost, and which another receiver now holds."""
        late = [one for one in self.stale if one[1].holder is not None]
        self.stale = [one for one in self.stale if one not in late]
        for holder, _item, delivery in late:
            assert list(await self.receivers[holder].settle([(delivery, ACK)])) == [delivery]

    async def renew(self) -> None:
        """Keep all that is held."""
        self._look_at_the_clock()
        for who, receiver in enumerate(self.receivers):
            held = [item.delivery for item in self.model.items if item.holder == who and item.delivery]
            assert not await receiver.renew(held), "a lease was lost before its time"

    async def handle_the_rest(self) -> None:
        """Handle all that is left."""
        await self.handle_what_is_held()
        while self.model.must():
            await self.receive(0, 3)
            await self.handle_what_is_held()

    async def handle_what_is_held(self) -> None:
        """Acknowledge all that the receivers have."""
        while held := [(who, item) for who in (0, 1) for item in self.model.held_by(who)]:
            await self.settle_one(*held[0], ACK)


def _now() -> float:
    return asyncio.get_running_loop().time()


class Programs(BrokerSuiteBase):
    """Random programs, run against the broker and against a model of it at the same time."""

    @pytest.mark.parametrize("ordered", [False, True], ids=["unordered", "ordered"])
    @own_case
    def test_any_program_does_what_the_contract_says(self, ordered: bool) -> None:
        """Nothing is lost, counts are right, and keys are in order, for any sequence of steps."""
        words = ["publish"] * 3 + ["receive"] * 4 + ["settle"] * 5 + ["close", "replay", "expire", "late"]
        steps = strategies.builds(
            Step, strategies.sampled_from(words), strategies.integers(0, 1), strategies.integers(0, 15)
        )

        phases = [Phase.explicit, Phase.generate, *([Phase.shrink] if self.shrink else [])]

        @settings(
            phases=phases,
            max_examples=self.max_examples,
            deadline=None,
            database=None,
            derandomize=not self.seed,
            suppress_health_check=[HealthCheck.too_slow],
        )
        @seeded(self.seed)
        @example(program=PUBLISHED_AFTER_A_REPLAY)
        @given(program=strategies.lists(steps, min_size=10, max_size=40))
        def check(program: list[Step]) -> None:
            needs = ALL | BrokerCapability.ORDER_BY_KEY if ordered else ALL
            lease, done = self.short_lease, False
            while not done:
                try:
                    self.play(lambda: self._play_program(program, ordered), needs, BrokerOptions(lease=lease))
                    done = True
                except TooSlowError:
                    lease *= 4

        check()

    async def _play_program(self, program: Sequence[Step], ordered: bool) -> None:
        subscription = self.subscription(ordered=ordered)
        await Play(self, subscription, await self.given(subscription)).run(program)
