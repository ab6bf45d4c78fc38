"""Cases: what operators do. Apps are deployed, grow, shrink, change, and run beside others."""

import asyncio
import random

import pytest

from diator.brokers.port import ACK, BrokerCapability, Delivery, Receiver, RetryAfter, Subscription
from diator.brokers.refusals import refusals_of
from diator.errors import BrokerError, BrokerUnavailableError, NotPublishedError
from diator_conformance.brokers.bench import BrokerOptions, BrokerSuiteBase, case
from diator_conformance.brokers.messages import message, messages, number, numbers

SAFE = BrokerCapability.ACKNOWLEDGED | BrokerCapability.CONSUMER_GROUPS
ORDERED = SAFE | BrokerCapability.ORDER_BY_KEY
NAMES = ["a.b", "a_b", "a-b", "A.b", "a b", "a*b", "a>b", "a.*", "a.>", "ä.b", "a=2eb", "a%2Eb", "a:b", "a/b", "a{b}"]
"""Names that a broker may map to one."""
DELAYED = 1_200
"""More messages than some servers have room for among those that wait."""


class Operating(BrokerSuiteBase):
    """Operations: apps are deployed, scaled and changed, beside other apps."""

    @case(SAFE | BrokerCapability.DURABLE)
    async def test_a_subscription_survives_the_server(self) -> None:
        """Even if the server is killed right after ``apply``, and ``apply`` is not called again."""
        subscription = self.subscription(ordered=BrokerCapability.ORDER_BY_KEY in self.new_broker().capabilities)
        broker = await self.given(subscription)
        await self.stop_server()
        await self.start_server()
        end = asyncio.get_running_loop().time() + self.receive_timeout
        for at in range(5):
            while True:
                try:
                    await broker.publish(messages(1, self.topic(), f"k{at}", first=at), timeout=self.receive_timeout)
                    break
                except NotPublishedError:
                    if asyncio.get_running_loop().time() > end:
                        raise
                    await asyncio.sleep(0.05)
        assert {*numbers(await self.take(await self.receiver(subscription), 5))} == {0, 1, 2, 3, 4}

    @case(SAFE)
    async def test_a_topic_that_is_added_begins_then(self) -> None:
        """Earlier messages that other subscriptions still hold are not delivered."""
        mine, other = self.subscription("mine", "orders"), self.subscription("other", "bills")
        broker = await self.given(mine, other)
        await broker.publish(messages(3, self.topic("bills")), timeout=self.receive_timeout)
        grown = self.subscription("mine", "orders", "bills")
        await broker.apply([grown], self.topics_of(grown))
        await broker.publish(messages(1, self.topic("bills"), first=7), timeout=self.receive_timeout)
        receiver = await self.receiver(grown)
        assert numbers(await self.take(receiver, 1)) == [7]
        await self.nothing_comes(receiver)

    @case()
    async def test_apply_names_a_topic_that_it_adds(self) -> None:
        """And the status lists it beforehand, if the broker knows it."""
        one, grown = self.subscription("handler", "orders"), self.subscription("handler", "orders", "bills")
        broker = await self.given(one)
        (before,) = await broker.status([grown])
        created = await broker.apply([grown], self.topics_of(grown))
        assert {*before.missing} <= {*created}
        if BrokerCapability.ACKNOWLEDGED in broker.capabilities:
            assert created, "a topic was added, and apply names nothing"
        assert not (await broker.status([grown]))[0].missing

    @case(ORDERED)
    async def test_another_order_is_refused_or_kept(self) -> None:
        """A subscription whose order changes is not split: no waiting message is lost."""
        plain = self.subscription()
        ordered = plain._replace(ordered=True)
        broker = await self.given(plain)
        await broker.publish(messages(2, self.topic(), "a"), timeout=self.receive_timeout)
        try:
            await broker.apply([ordered], ordered.topics)
            taken = await self.take(await broker.subscribe(ordered), 2)
        except BrokerError:
            return
        assert sorted(numbers(taken)) == [0, 1]

    @case(SAFE)
    async def test_names_are_not_mixed_up(self) -> None:
        """Each subscription and topic is separate, or is rejected."""
        kept: dict[int, Subscription] = {}
        for at, name in enumerate((*NAMES, "x" * 100)):
            one = self.subscription(f"{name}-handler", name)
            together = [*kept.values(), one]
            if not list(refusals_of(self.new_broker(), together, self.topics_of(*together))):
                kept[at] = one
        assert kept, "every name is refused"
        broker = await self.given(*kept.values())
        await broker.publish([message(at, one.topics[0]) for at, one in kept.items()], timeout=self.receive_timeout)
        receivers: list[Receiver] = []
        for at, one in reversed(kept.items()):
            receivers.append(await broker.subscribe(one))
            delivery = await self.take_one(receivers[-1])
            assert (number(delivery), delivery.topic) == (at, one.topics[0].name)
            await self.ack(receivers[-1], [delivery])
        await self.nothing_comes(*receivers)

    @case(SAFE, short_lease=True)
    async def test_a_lease_is_that_of_the_process_that_asked(self) -> None:
        """One process has a short lease, and has applied; another has a longer one, or is rejected."""
        subscription = self.subscription()
        short = (await self.given(subscription)).lease
        self._wanted = BrokerOptions(lease=30.0)
        broker = await self.connected()
        if short is None or broker.lease is None or broker.lease < 10:
            pytest.skip("brokers of one space have one lease")
        try:
            receiver = await broker.subscribe(subscription)
        except BrokerError:
            return
        await broker.publish(messages(1, self.topic()), timeout=self.receive_timeout)
        held = await self.take(receiver, 1)
        second = await (await self.connected()).subscribe(subscription)
        waiting = asyncio.ensure_future(second.receive(1))
        await asyncio.sleep(3 * short)
        assert not waiting.done(), "another receiver has it already"
        waiting.cancel()
        await asyncio.wait([waiting])
        await self.ack(receiver, held)

    @case(SAFE | BrokerCapability.DELAYED_RETRY)
    async def test_many_that_are_delayed_stop_no_other(self) -> None:
        """A handler that calls an unavailable service retries every message."""
        subscription = self.subscription(max_delay=300.0)
        broker = await self.given(subscription)
        receiver = await broker.subscribe(subscription)
        for first in range(0, DELAYED, 100):
            sent = [message(at, self.topic(), f"k{at}") for at in range(first, first + 100)]
            await broker.publish(sent, timeout=self.receive_timeout)
            for delivery in (taken := await self.take(receiver, 100)):
                assert delivery.failures == 0
            await receiver.settle([(delivery, RetryAfter(300.0)) for delivery in taken])
        await broker.publish(messages(1, self.topic(), "new", first=DELAYED), timeout=self.receive_timeout)
        assert numbers(await self.take(receiver, 1)) == [DELAYED]

    @pytest.mark.parametrize("ordered", [False, True], ids=["unordered", "ordered"])
    @case(SAFE)
    async def test_receivers_that_come_and_go_strand_nothing(self, ordered: bool) -> None:
        """They are closed during a receive while messages arrive; all are delivered soon, without a failure."""
        if ordered and BrokerCapability.ORDER_BY_KEY not in self.new_broker().capabilities:
            pytest.skip("the broker does not declare ORDERED")
        subscription = self.subscription(ordered=ordered)
        broker = await self.given(subscription)
        other = await self.connected()
        dice, sent = random.Random(3), 0  # noqa: S311 - the same in each run
        for _ in range(40):
            receiver = await broker.subscribe(subscription)
            task = asyncio.ensure_future(receiver.receive(3))
            for _ in range(2):
                batch = [message(sent + at, self.topic(), f"k{at}") for at in range(2)]
                await other.publish(batch, timeout=self.receive_timeout)
                sent += len(batch)
                await asyncio.sleep(dice.choice((0, 0, 0.0005, 0.002)))
            if dice.random() < 0.5:
                task.cancel()
                await asyncio.wait([task])
            await receiver.aclose()
            await asyncio.wait([task])
        receiver = await self.receiver(subscription)
        taken: list[Delivery] = []
        while len(taken) < sent:
            taken += (some := await self.receive(receiver, 100))
            await self.ack(receiver, some)
        assert sorted(numbers(taken)) == list(range(sent))
        assert {delivery.failures for delivery in taken} == {0}

    @case(ORDERED)
    async def test_a_second_receiver_gets_its_share_of_the_keys(self) -> None:
        """A worker that is added under load handles a part of the messages, even if the first one held all keys."""
        subscription = self.subscription(ordered=True)
        broker = await self.given(subscription)
        receivers = [await broker.subscribe(subscription)]
        had, closing = [0, 0], asyncio.Event()

        async def work(who: int) -> None:
            while deliveries := await receivers[who].receive(5):
                had[who] += len(deliveries)
                await asyncio.sleep(0.005 * len(deliveries))
                try:
                    await receivers[who].settle([(delivery, ACK) for delivery in deliveries])
                except BrokerUnavailableError:  # of a receiver that closes meanwhile
                    if not closing.is_set():
                        raise

        tasks = [asyncio.ensure_future(work(0))]
        for round_ in range(12):
            batch = [message(100 * round_ + at, self.topic(), f"k{at % 50}") for at in range(100)]
            await broker.publish(batch, timeout=self.receive_timeout)
            await asyncio.sleep(0.3)
            if round_ == 0:
                receivers.append(await self.receiver(subscription))
                tasks.append(asyncio.ensure_future(work(1)))
        closing.set()
        for receiver in receivers:
            await receiver.aclose()
        await asyncio.gather(*tasks)
        assert had[1] > sum(had) / 6, f"the first receiver had {had[0]} messages, the second {had[1]}"
