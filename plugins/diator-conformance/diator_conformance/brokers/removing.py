"""Cases: subscriptions that no handler needs any longer are found and removed."""

import asyncio

import pytest

from diator.brokers.letters import dead_letters_of
from diator.brokers.port import (
    Broker,
    BrokerCapability,
    ManagesSubscriptions,
    MoveToDeadLetters,
    RetryAfter,
    Subscription,
)
from diator.errors import BrokerError
from diator_conformance.brokers.bench import BrokerOptions, BrokerSuiteBase, case, keeper
from diator_conformance.brokers.messages import messages, number, numbers

SAFE = BrokerCapability.ACKNOWLEDGED | BrokerCapability.CONSUMER_GROUPS
WHOLE = SAFE | BrokerCapability.DEAD_LETTERS | BrokerCapability.DELAYED_RETRY
BOUNDED = SAFE | BrokerCapability.BACKPRESSURE


class Removing(BrokerSuiteBase):
    """A handler was deleted or renamed; its subscription would otherwise grow forever."""

    @case(SAFE)
    async def test_other_subscriptions_are_those_that_were_applied(self) -> None:
        """Without those that the caller uses. Their messages are counted."""
        old, used, wide = self.subscription("old"), self.subscription("used"), self.subscription("wide", "a", "b")
        broker = await self.given(old, used, wide)
        manager = manager_of(broker)
        (found, *more) = await manager.other_subscriptions([used, wide])
        assert (found.name, found.exists, found.missing, more) == (old.name, True, (), [])
        assert {one.name for one in await manager.other_subscriptions([])} == {old.name, used.name, wide.name}
        await broker.publish(messages(2, self.topic()), timeout=self.receive_timeout)
        (found,) = await manager.other_subscriptions([used, wide])
        assert found.backlog in (2, None)
        again = manager_of(await self.connected())
        assert [one.name for one in await again.other_subscriptions([used, wide])] == [old.name]

    @case(SAFE)
    async def test_subscriptions_of_another_space_are_neither_found_nor_removed(self) -> None:
        """Even if it has the same name, and the name of one space starts with that of the other."""
        subscription = self.subscription()
        broker = await self.given(subscription)
        space = f"{self.namespace}x"
        elsewhere = self.make_broker(space, self._wanted)
        try:
            await elsewhere.connect()
            assert not await manager_of(elsewhere).other_subscriptions([])
            assert not await manager_of(elsewhere).remove_subscription(subscription.name)
            other = subscription._replace(name=f"{subscription.name}.x")
            await elsewhere.apply([subscription, other], self.topics_of(subscription))
            assert [one.name for one in await manager_of(broker).other_subscriptions([])] == [subscription.name]
            assert not await manager_of(broker).remove_subscription(other.name)
            assert await manager_of(broker).remove_subscription(subscription.name)
            found = await manager_of(elsewhere).other_subscriptions([])
            assert {one.name for one in found} == {subscription.name, other.name}
        finally:
            await elsewhere.aclose()
            await self.clean_up(space)

    @case(SAFE)
    async def test_names_that_are_listed_are_those_that_can_be_removed(self) -> None:
        """Including a long one, and one with characters that a broker may have to replace."""
        odd = [self.subscription(f"{name}-handler") for name in ("a.b", "ä b", "a:b", "a{b}", "a%2Eb", "a*b", "x" * 70)]
        broker = await self.given(*odd)
        manager = manager_of(broker)
        assert not await manager.other_subscriptions(odd)
        for left in range(len(odd), 0, -1):
            found = await manager.other_subscriptions([])
            assert len(found) == left
            assert await manager.remove_subscription(found[0].name)
        assert not await manager.other_subscriptions([])

    @pytest.mark.parametrize("ordered", [False, True], ids=["unordered", "ordered"])
    @case(WHOLE)
    async def test_removing_ends_a_subscription_with_all_that_it_holds(self, ordered: bool) -> None:
        """Messages, retries and dead letters of all its topics; other subscriptions of the topics keep theirs."""
        if ordered and BrokerCapability.ORDER_BY_KEY not in self.new_broker().capabilities:
            pytest.skip("the broker does not declare ORDER_BY_KEY")
        old = self.subscription("old", "orders", "bills", ordered=ordered)
        kept = self.subscription("kept", ordered=ordered)
        broker = await self.given(old, kept)
        await self._fill(broker, old)
        dead = await self._dead_letter_one(broker, kept)

        assert await manager_of(broker).remove_subscription(old.name)
        assert not [status for status in await broker.status([old]) if status.exists]
        assert not await self.letters(broker, old)
        assert [one.name for one in await manager_of(broker).other_subscriptions([])] == [kept.name]
        assert len(await self.letters(broker, kept)) == 1
        await broker.publish(messages(1, self.topic(), first=9), timeout=self.receive_timeout)
        receiver = await broker.subscribe(kept)
        assert sorted(numbers(await self.take(receiver, 4))) == sorted({0, 1, 2, 3, 9} - {dead})

        await broker.apply([old], self.topics_of(old))
        await broker.publish(messages(1, self.topic("bills"), first=10), timeout=self.receive_timeout)
        again = await (await self.connected()).subscribe(old)
        delivery = await self.take_one(again)
        assert (number(delivery), delivery.failures, delivery.deliveries) == (10, 0, 1)
        await self.ack(again, [delivery])
        await asyncio.sleep(2 * self.retry_delay)
        await self.nothing_comes(again)
        assert not [letter async for letter in dead_letters_of(keeper(broker), old)]

    async def _fill(self, broker: Broker, subscription: Subscription) -> None:
        await broker.publish(messages(4, self.topic()), timeout=self.receive_timeout)
        await broker.publish(messages(3, self.topic("bills"), first=4), timeout=self.receive_timeout)
        receiver = await broker.subscribe(subscription)
        dead, retried = await self.take(receiver, 2)
        await receiver.settle([(dead, MoveToDeadLetters("rejected")), (retried, RetryAfter(self.retry_delay))])
        await receiver.aclose()

    async def _dead_letter_one(self, broker: Broker, subscription: Subscription) -> int:
        receiver = await broker.subscribe(subscription)
        (first,) = await self.take(receiver, 1)
        await receiver.settle([(first, MoveToDeadLetters("rejected"))])
        await receiver.aclose()
        return number(first)

    @case(SAFE)
    async def test_removing_what_is_not_there_returns_false(self) -> None:
        """Also the second time, and for the name of a topic or the beginning of a name."""
        subscription = self.subscription()
        broker = await self.given(subscription)
        manager = manager_of(broker)
        for name in (f"{subscription.name}s", subscription.name[:-1], self.topic().name, f"{self.namespace}.*"):
            assert not await manager.remove_subscription(name)
        await broker.publish(messages(1, self.topic()), timeout=self.receive_timeout)
        receiver = await broker.subscribe(subscription)
        await self.ack(receiver, await self.take(receiver, 1))
        await receiver.aclose()
        assert await manager.remove_subscription(subscription.name)
        assert not await manager.remove_subscription(subscription.name)

    @case(SAFE)
    async def test_a_topic_whose_last_subscription_was_removed_drops_what_is_published(self) -> None:
        """Publishing does not fail, and a later subscription gets none of these messages."""
        subscription = self.subscription()
        broker = await self.given(subscription)
        assert await manager_of(broker).remove_subscription(subscription.name)
        await broker.publish(messages(2, self.topic()), timeout=self.receive_timeout)
        await broker.apply([subscription], self.topics_of(subscription))
        await broker.publish(messages(1, self.topic(), first=5), timeout=self.receive_timeout)
        receiver = await broker.subscribe(subscription)
        assert numbers(await self.take(receiver, 1)) == [5]
        await self.nothing_comes(receiver)

    @case(WHOLE)
    async def test_a_subscription_that_was_created_again_keeps_its_retries(self) -> None:
        """A broker may remember deleted objects of the old one, such as a retry queue."""
        subscription = self.subscription()
        broker = await self.given(subscription)
        for at in range(2):
            await broker.publish(messages(1, self.topic(), first=at), timeout=self.receive_timeout)
            receiver = await broker.subscribe(subscription)
            retried = (await self.take_one(receiver), RetryAfter(self.retry_delay))
            try:
                await receiver.settle([retried])
            except BrokerError:  # which leaves the delivery as it was
                await receiver.settle([retried])
            again = await self.take_one(receiver)
            assert (number(again), again.failures) == (at, 1)
            await self.ack(receiver, [again])
            await receiver.aclose()
            assert await manager_of(broker).remove_subscription(subscription.name)
            await broker.apply([subscription], self.topics_of(subscription))

    @case(BOUNDED, BrokerOptions(capacity=2))
    async def test_removing_a_full_subscription_lets_publishers_continue(self) -> None:
        """They waited for room in it, and no receiver would have made any."""
        old, used = self.subscription("old"), self.subscription("used")
        broker = await self.given(old)
        await broker.publish(messages(2, self.topic()), timeout=self.receive_timeout)
        await broker.apply([used], self.topics_of(used))
        waiting = asyncio.ensure_future(broker.publish(messages(1, self.topic(), first=2), timeout=self.case_timeout))
        await asyncio.sleep(self.quiet_period)
        assert not waiting.done()
        assert await manager_of(broker).remove_subscription(old.name)
        await asyncio.wait_for(waiting, self.receive_timeout)
        assert numbers(await self.take(await broker.subscribe(used), 1)) == [2]


def manager_of(broker: Broker) -> ManagesSubscriptions:
    """Return a broker as one that lists and removes subscriptions; ends the case if it is not."""
    if not isinstance(broker, ManagesSubscriptions):
        pytest.skip("the broker does not list subscriptions (ManagesSubscriptions)")
    return broker
