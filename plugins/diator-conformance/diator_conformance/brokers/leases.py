"""Cases: for how long a delivery is its receiver's own."""

import asyncio

import pytest

from diator.brokers.port import ACK, RELEASE, BrokerCapability, MoveToDeadLetters, Outcome, RetryAfter
from diator_conformance.brokers.bench import BrokerSuiteBase, case
from diator_conformance.brokers.messages import messages, number, numbers

SAFE = BrokerCapability.ACKNOWLEDGED | BrokerCapability.CONSUMER_GROUPS
OUTCOMES = pytest.mark.parametrize(
    "outcome",
    [ACK, RELEASE, RetryAfter(0.0), MoveToDeadLetters("rejected")],
    ids=lambda outcome: type(outcome).__name__,
)


class Leases(BrokerSuiteBase):
    """Leases: a delivery belongs to its receiver for a time."""

    @case(SAFE, short_lease=True)
    async def test_what_is_not_settled_in_time_is_delivered_again(self) -> None:
        """To any receiver, with one more delivery counted and no failure."""
        subscription = self.subscription()
        broker = await self.given(subscription)
        first, second = await broker.subscribe(subscription), await self.receiver(subscription)
        await broker.publish(messages(3, self.topic()), timeout=self.receive_timeout)
        held = await self.take(first, 3)
        await self.after_the_lease(broker)
        again = await self.take(second, 3)
        assert sorted(numbers(again)) == sorted(numbers(held)) == [0, 1, 2]
        assert {(delivery.failures, delivery.deliveries) for delivery in again} == {(0, 2)}
        await self.after_the_lease(broker)
        assert {delivery.deliveries for delivery in await self.take(first, 3)} == {3}

    @case(SAFE, short_lease=True)
    async def test_a_lease_that_is_renewed_is_kept(self) -> None:
        """While the lease is renewed, no other receiver gets the message."""
        subscription = self.subscription()
        broker = await self.given(subscription)
        if broker.lease is None:
            pytest.skip("the leases of this broker last as long as its receivers are connected")
        first, second = await broker.subscribe(subscription), await self.receiver(subscription)
        await broker.publish(messages(2, self.topic()), timeout=self.receive_timeout)
        held = await self.take(first, 2)
        waiting = asyncio.ensure_future(second.receive(10))
        for _ in range(6):
            await asyncio.sleep(broker.lease / 3)
            assert not await first.renew(held)
        assert not waiting.done(), "another receiver got what was renewed"
        await self.ack(first, held)
        await second.aclose()
        assert not await waiting

    @OUTCOMES
    @case(SAFE | BrokerCapability.DEAD_LETTERS, short_lease=True)
    async def test_settling_after_the_lease_was_lost_changes_nothing(self, outcome: Outcome) -> None:
        """It is reported, and does not affect the receiver that holds the message now."""
        subscription = self.subscription()
        broker = await self.given(subscription)
        first, second = await broker.subscribe(subscription), await self.receiver(subscription)
        await broker.publish(messages(1, self.topic()), timeout=self.receive_timeout)
        lost = await self.take_one(first)
        await self.after_the_lease(broker)
        held = await self.take_one(second)
        assert list(await first.settle([(lost, outcome)])) == [lost]
        assert list(await first.renew([lost])) == [lost]
        assert not await second.renew([held]), "who has it lost it by what another did"
        assert not await self.letters(broker, subscription)
        assert not await second.settle([(held, RetryAfter(0.0))])
        again = await self.take_one(second)
        assert (again.failures, again.deliveries) == (1, 3)
        await self.ack(second, [again])
        await self.nothing_comes(first, second)

    @case(SAFE, short_lease=True)
    async def test_only_what_was_lost_is_reported(self) -> None:
        """The others of the same call are settled."""
        subscription = self.subscription()
        broker = await self.given(subscription)
        if broker.lease is None:
            pytest.skip("the leases of this broker last as long as its receivers are connected")
        first, second = await broker.subscribe(subscription), await self.receiver(subscription)
        await broker.publish(messages(4, self.topic()), timeout=self.receive_timeout)
        held = await self.take(first, 4)
        for _ in range(4):
            await asyncio.sleep(broker.lease / 3)
            assert not await first.renew(held[1::2])
        taken = await self.take(second, 2)
        lost = await first.settle([(delivery, ACK) for delivery in held])
        assert sorted(numbers(lost)) == sorted(numbers(taken)) == sorted(numbers(held[::2]))
        await self.ack(second, taken)
        await self.nothing_comes(first, second)

    @case(SAFE, short_lease=True)
    async def test_one_receiver_may_hold_both_the_lost_and_the_new_lease(self) -> None:
        """Each delivery has its own lease, even if the receiver is the same."""
        subscription = self.subscription()
        broker = await self.given(subscription)
        receiver = await broker.subscribe(subscription)
        await broker.publish(messages(1, self.topic()), timeout=self.receive_timeout)
        lost = await self.take_one(receiver)
        await self.after_the_lease(broker)
        held = await self.take_one(receiver)
        assert number(held) == number(lost)
        assert list(await receiver.settle([(lost, ACK)])) == [lost]
        assert not await receiver.settle([(held, RetryAfter(0.0))])
        assert (await self.take_one(receiver)).failures == 1
