"""Cases: messages of one key, in order."""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from itertools import chain

import pytest

from diator.brokers.port import (
    ACK,
    RELEASE,
    BrokerCapability,
    Delivery,
    MoveToDeadLetters,
    Outcome,
    Receiver,
    RetryAfter,
    Settlement,
)
from diator_conformance.brokers.bench import BrokerSuiteBase, case, keeper
from diator_conformance.brokers.messages import envelope_of, message, messages, number, numbers

ORDERED = BrokerCapability.ORDER_BY_KEY | BrokerCapability.ACKNOWLEDGED | BrokerCapability.CONSUMER_GROUPS


class Order(BrokerSuiteBase):
    """Messages of one key, in order."""

    @case(ORDERED)
    async def test_messages_of_one_key_come_in_the_order_given(self) -> None:
        """Within a batch and from one call to the next, with any limits."""
        subscription = self.subscription(ordered=True)
        broker = await self.given(subscription)
        receiver = await broker.subscribe(subscription)
        keys = ("a", "b", "a", "c", "b", "a")
        sent = [message(at, self.topic(), keys[at % 6]) for at in range(60)]
        for first in range(0, 60, 20):
            await broker.publish(sent[first : first + 20], timeout=self.receive_timeout)
        came: dict[str | None, list[int]] = defaultdict(list)
        for limit in [1, 2, 7] * 60:
            batch = await self.receive(receiver, limit)
            for delivery in batch:
                came[envelope_of(delivery).partitionkey].append(number(delivery))
            await self.ack(receiver, batch)
            if sum(map(len, came.values())) == 60:
                break
        assert came == {key: [at for at in range(60) if keys[at % 6] == key] for key in "abc"}

    @case(ORDERED)
    async def test_one_key_is_with_one_receiver_at_a_time(self) -> None:
        """Until it is settled, another receiver gets messages of other keys."""
        subscription = self.subscription(ordered=True)
        broker = await self.given(subscription)
        first, second = await broker.subscribe(subscription), await self.receiver(subscription)
        await broker.publish(messages(3, self.topic(), "a"), timeout=self.receive_timeout)
        held = await self.take_one(first)
        await self.nothing_comes(second)
        await broker.publish([message(7, self.topic(), "b")], timeout=self.receive_timeout)
        mine, others = [held], list[Delivery]()
        while 7 not in numbers(mine + others):
            more, more_of_others = await self.take_from([first, second], 1)
            mine, others = mine + more, others + more_of_others
        assert {*numbers(others)} <= {7}
        await self.nothing_comes(second)
        await self.ack(first, mine)
        await self.ack(second, others)
        had = [at for at in numbers(mine) if at != 7]
        assert had == list(range(len(had)))
        await self._comes_in_order([first, second], list(range(len(had), 3)))

    @case(ORDERED)
    async def test_status_counts_what_waits_for_its_key(self) -> None:
        """If the broker knows it; acknowledged messages no longer count."""
        subscription = self.subscription(ordered=True)
        broker = await self.given(subscription)
        receiver = await broker.subscribe(subscription)
        await broker.publish(messages(5, self.topic(), "a"), timeout=self.receive_timeout)
        for _ in range(2):
            await self.ack(receiver, [await self.take_one(receiver)])
        (status,) = await broker.status([subscription])
        assert status.backlog in (3, None)

    @case(ORDERED | BrokerCapability.DELAYED_RETRY)
    async def test_a_retry_holds_its_key_and_no_other(self) -> None:
        """The later ones of the key wait until the retry was handled."""
        subscription = self.subscription(ordered=True)
        broker = await self.given(subscription)
        first, second = await broker.subscribe(subscription), await self.receiver(subscription)
        await broker.publish(messages(3, self.topic(), "a"), timeout=self.receive_timeout)
        await broker.publish([message(7, self.topic(), "b"), message(8, self.topic())], timeout=self.receive_timeout)
        held = [await self.take_one(first)]
        while number(held[-1]) != 0:
            held.append(await self.take_one(first))
        await first.settle([(held.pop(), RetryAfter(3 * self.retry_delay))])
        await self.ack(first, held)
        mine, others = await self.take_from([first, second], 2 - len(held))
        assert sorted(numbers(held + mine + others)) == [7, 8]
        await self.ack(first, mine)
        await self.ack(second, others)
        await self.nothing_comes(first, second)
        came = await self._comes_in_order([first, second], [0, 1, 2])
        assert [delivery.failures for delivery in came] == [1, 0, 0]

    @case(ORDERED | BrokerCapability.DELAYED_RETRY)
    async def test_what_waits_behind_a_retry_stops_no_other_key(self) -> None:
        """However many they are."""
        subscription = self.subscription(ordered=True, max_delay=60.0)
        broker = await self.given(subscription)
        receiver = await broker.subscribe(subscription)
        await broker.publish(messages(1, self.topic(), "a"), timeout=self.receive_timeout)
        assert not await receiver.settle([(await self.take_one(receiver), RetryAfter(60.0))])
        tail = self.tail + 1
        for first in range(1, tail, 100):
            await broker.publish(messages(100, self.topic(), "a", first=first), timeout=self.receive_timeout)
        others = [message(tail + at, self.topic(), f"k{at}") for at in range(30)]
        await broker.publish(others, timeout=self.receive_timeout)
        came: list[int] = []
        while len(came) < 30:
            batch = await self.receive(receiver, 30)
            came += numbers(batch)
            await self.ack(receiver, batch)
        assert sorted(came) == list(range(tail, tail + 30))

    @pytest.mark.parametrize("backwards", [False, True])
    @pytest.mark.parametrize("together", [False, True])
    @case(ORDERED)
    async def test_what_is_released_waits_in_its_place(self, together: bool, backwards: bool) -> None:
        """The first of several fails, and the later ones are released with it: all are redelivered in order."""
        subscription = self.subscription(ordered=True)
        broker = await self.given(subscription)
        first, second = await broker.subscribe(subscription), await self.receiver(subscription)
        await broker.publish(messages(6, self.topic(), "a"), timeout=self.receive_timeout)
        held = list(await self.receive(first, 4))
        assert numbers(held) == list(range(len(held)))
        outcomes: list[Settlement] = [(held[0], RetryAfter(0.0)), *((delivery, RELEASE) for delivery in held[1:])]
        outcomes = outcomes[::-1] if backwards else outcomes
        for settlements in [outcomes] if together else [[one] for one in outcomes]:
            assert not await first.settle(settlements)
        came = await self._comes_in_order([first, second], list(range(6)))
        assert [delivery.failures for delivery in came] == [1, 0, 0, 0, 0, 0]

    @case(ORDERED)
    async def test_a_receiver_that_is_closed_gives_back_in_order(self) -> None:
        """Another receiver continues where it stopped."""
        subscription = self.subscription(ordered=True)
        broker = await self.given(subscription)
        first = await broker.subscribe(subscription)
        await broker.publish(messages(6, self.topic(), "a"), timeout=self.receive_timeout)
        held = await self.receive(first, 4)
        await self.ack(first, held[:1])
        await first.aclose()
        await self._comes_in_order([await self.receiver(subscription)], [1, 2, 3, 4, 5])

    @case(ORDERED)
    async def test_a_key_stays_with_its_receiver_while_later_ones_are_held(self) -> None:
        """Even if the first of them is retried immediately, and another receiver is waiting for it."""
        subscription = self.subscription(ordered=True)
        broker = await self.given(subscription)
        first, second = await broker.subscribe(subscription), await self.receiver(subscription)
        await broker.publish(messages(3, self.topic(), "a"), timeout=self.receive_timeout)
        held = await self.receive(first, 3)
        await first.settle([(held[0], RetryAfter(0.0))])
        for later in held[:0:-1]:
            await self.nothing_comes(second)
            assert not await first.settle([(later, RELEASE)])
        await self._comes_in_order([first, second], [0, 1, 2])

    @case(ORDERED, short_lease=True)
    async def test_order_holds_when_a_lease_runs_out(self) -> None:
        """The key goes to another receiver, from the first that was not settled."""
        subscription = self.subscription(ordered=True)
        broker = await self.given(subscription)
        first = await broker.subscribe(subscription)
        await broker.publish(messages(5, self.topic(), "a"), timeout=self.receive_timeout)
        held = await self.receive(first, 3)
        await self.ack(first, held[:1])
        await self.after_the_lease(broker)
        await self._comes_in_order([await self.receiver(subscription)], [1, 2, 3, 4])

    @case(ORDERED, short_lease=True)
    async def test_the_leases_of_a_key_are_lost_together(self) -> None:
        """A receiver that has lost the first has lost those behind it, even if no other receiver has them yet."""
        subscription = self.subscription(ordered=True)
        broker = await self.given(subscription)
        first, second = await broker.subscribe(subscription), await self.receiver(subscription)
        await broker.publish(messages(3, self.topic(), "a"), timeout=self.receive_timeout)
        held = await self.receive(first, 3)
        await self.after_the_lease(broker)
        taken = await self.take_one(second)
        assert number(taken) == 0
        lost = await first.renew(held)
        assert sorted(numbers(lost)) == numbers(held), "the key is with two receivers"
        lost = await first.settle([(delivery, ACK) for delivery in held])
        assert sorted(numbers(lost)) == numbers(held)
        await self.ack(second, [taken])
        await self._comes_in_order([second], [1, 2])

    @pytest.mark.parametrize("outcome", [ACK, MoveToDeadLetters("rejected")], ids=["Ack", "MoveToDeadLetters"])
    @case(ORDERED | BrokerCapability.DEAD_LETTERS)
    async def test_what_is_settled_for_good_frees_its_key(self, outcome: Outcome) -> None:
        """The next message of the key is delivered, also after a dead letter."""
        subscription = self.subscription(ordered=True)
        broker = await self.given(subscription)
        first, second = await broker.subscribe(subscription), await self.receiver(subscription)
        await broker.publish(messages(2, self.topic(), "a"), timeout=self.receive_timeout)
        held = await self.take_one(first)
        waiting = asyncio.ensure_future(self.take_from([first, second], 1))
        await asyncio.sleep(self.quiet_period)
        await first.settle([(held, outcome)])
        assert numbers(chain.from_iterable(await waiting)) == [1]

    @case(ORDERED | BrokerCapability.DEAD_LETTERS)
    async def test_a_replay_waits_for_its_key(self) -> None:
        """It is another message of its key, and never runs beside one."""
        subscription = self.subscription(ordered=True)
        broker = await self.given(subscription)
        first, second = await broker.subscribe(subscription), await self.receiver(subscription)
        await broker.publish(messages(2, self.topic(), "a"), timeout=self.receive_timeout)
        await first.settle([(await self.take_one(first), MoveToDeadLetters("rejected"))])
        held = await self.take_one(first)
        (letter,) = await self.letters(broker, subscription)
        assert await keeper(broker).replay(subscription, [letter.id])
        await self.nothing_comes(second)
        await self.ack(first, [held])
        assert numbers(chain.from_iterable(await self.take_from([first, second], 1))) == [0]

    @case(ORDERED | BrokerCapability.DEAD_LETTERS)
    async def test_a_replay_comes_behind_all_that_wait(self) -> None:
        """Even behind many messages that no receiver has seen yet."""
        subscription = self.subscription(ordered=True)
        broker = await self.given(subscription)
        receiver = await broker.subscribe(subscription)
        await broker.publish(messages(60, self.topic(), "a"), timeout=self.receive_timeout)
        await receiver.settle([(await self.take_one(receiver), MoveToDeadLetters("rejected"))])
        (letter,) = await self.letters(broker, subscription)
        assert await keeper(broker).replay(subscription, [letter.id])
        await self._comes_in_order([receiver], [*range(1, 60), 0])

    @case(ORDERED)
    async def test_messages_without_a_key_do_not_wait_for_each_other(self) -> None:
        """Even in an ordered subscription."""
        subscription = self.subscription(ordered=True)
        broker = await self.given(subscription)
        first, second = await broker.subscribe(subscription), await self.receiver(subscription)
        await broker.publish(messages(4, self.topic()), timeout=self.receive_timeout)
        came = await self.take_from([first, second], 4)
        assert sorted(numbers(chain.from_iterable(came))) == [0, 1, 2, 3]

    @case(BrokerCapability.CONSUMER_GROUPS | BrokerCapability.ACKNOWLEDGED)
    async def test_a_subscription_that_is_not_ordered_does_not_hold_keys(self) -> None:
        """Several receivers hold messages of one key, and a retry delays none of them."""
        subscription = self.subscription()
        broker = await self.given(subscription)
        first, second = await broker.subscribe(subscription), await self.receiver(subscription)
        await broker.publish(messages(4, self.topic(), "a"), timeout=self.receive_timeout)
        came = await self.take(first, 2) + await self.take(second, 2)
        assert sorted(numbers(came)) == [0, 1, 2, 3]

    async def _comes_in_order(self, receivers: Sequence[Receiver], expected: list[int]) -> list[Delivery]:
        """Receive and acknowledge all of one key, which is with one receiver at a time."""
        came: list[Delivery] = []
        while len(came) < len(expected):
            taken = await self.take_from(receivers, 1, limit=4)
            assert sum(map(bool, taken)) == 1, f"several receivers have {[numbers(one) for one in taken]} of one key"
            for receiver, batch in zip(receivers, taken, strict=True):
                came += batch
                await self.ack(receiver, batch)
        assert numbers(came) == expected
        return came
