"""Cases: what becomes of a delivery that is settled."""

import asyncio

import pytest

from diator.brokers.port import ACK, RELEASE, BrokerCapability, MoveToDeadLetters, Outcome, RetryAfter
from diator_conformance.brokers.bench import BrokerOptions, BrokerSuiteBase, case, keeper
from diator_conformance.brokers.messages import envelope_of, messages, number

SAFE = BrokerCapability.ACKNOWLEDGED
LETTERS = BrokerCapability.ACKNOWLEDGED | BrokerCapability.DEAD_LETTERS
NOW = RetryAfter(0.0)


class Settling(BrokerSuiteBase):
    """Settling: each outcome has its effect."""

    @case(SAFE)
    async def test_what_is_acknowledged_is_gone(self) -> None:
        """It is not redelivered, not even when its receiver is closed."""
        subscription = self.subscription()
        broker = await self.given(subscription)
        receiver = await broker.subscribe(subscription)
        await broker.publish(messages(3, self.topic()), timeout=self.receive_timeout)
        await self.ack(receiver, await self.take(receiver, 3))
        await receiver.aclose()
        await self.nothing_comes(await self.receiver(subscription))

    @case(SAFE)
    async def test_what_is_released_comes_back_at_once_and_counts_nothing(self) -> None:
        """A released message is as if it had not been delivered."""
        subscription = self.subscription()
        broker = await self.given(subscription)
        receiver = await broker.subscribe(subscription)
        await broker.publish(messages(2, self.topic()), timeout=self.receive_timeout)
        for _ in range(3):
            deliveries = await self.take(receiver, 2)
            assert {(delivery.failures, delivery.deliveries) for delivery in deliveries} == {(0, 1)}
            assert not await receiver.settle([(delivery, RELEASE) for delivery in deliveries])

    @case(SAFE | BrokerCapability.DELAYED_RETRY)
    async def test_a_retry_comes_back_after_its_delay(self) -> None:
        """Neither earlier nor much later; it is counted, and otherwise unchanged."""
        subscription = self.subscription()
        broker = await self.given(subscription)
        receiver = await broker.subscribe(subscription)
        await broker.publish(messages(1, self.topic()), timeout=self.receive_timeout)
        delivery = await self.take_one(receiver)
        asked = asyncio.get_running_loop().time()
        assert not await receiver.settle([(delivery, RetryAfter(self.retry_delay))])
        again = await self.take_one(receiver)
        took = asyncio.get_running_loop().time() - asked
        assert took > self.retry_delay * 0.9, f"it came back after {took} s"
        assert (again.failures, again.deliveries, again.topic) == (1, 2, delivery.topic)
        assert envelope_of(again) == envelope_of(delivery)

    @case(SAFE | BrokerCapability.DELAYED_RETRY)
    async def test_delays_are_each_messages_own(self) -> None:
        """The message with the shorter delay is redelivered first, and none waits for the longer delay."""
        subscription = self.subscription(max_delay=3600.0)
        broker = await self.given(subscription)
        receiver = await broker.subscribe(subscription)
        await broker.publish(messages(3, self.topic()), timeout=self.receive_timeout)
        delays = {0: 3600.0, 1: 2 * self.retry_delay, 2: self.retry_delay}
        deliveries = await self.take(receiver, 3)
        await receiver.settle([(delivery, RetryAfter(delays[number(delivery)])) for delivery in deliveries])
        assert [number(await self.take_one(receiver)) for _ in range(2)] == [2, 1]
        await broker.publish(messages(1, self.topic(), first=3), timeout=self.receive_timeout)
        assert number(await self.take_one(receiver)) == 3

    @case(SAFE)
    async def test_failures_add_up(self) -> None:
        """Each retry counts one more; a release in between counts nothing."""
        subscription = self.subscription()
        broker = await self.given(subscription)
        receiver = await broker.subscribe(subscription)
        await broker.publish(messages(1, self.topic()), timeout=self.receive_timeout)
        counts: list[tuple[int, int]] = []
        for outcome in (NOW, NOW, RELEASE, NOW, ACK):
            delivery = await self.take_one(receiver)
            counts.append((delivery.failures, delivery.deliveries))
            assert not await receiver.settle([(delivery, outcome)])
        assert counts == [(0, 1), (1, 2), (2, 3), (2, 3), (3, 4)]
        await self.nothing_comes(receiver)

    @case(SAFE, BrokerOptions(duplicate_window=60.0))
    async def test_a_retry_comes_back_to_its_own_subscription_only(self) -> None:
        """Other subscriptions do not see it, and it is not a duplicate of itself."""
        failing, well = self.subscription("failing"), self.subscription("well")
        broker = await self.given(failing, well)
        to_failing, to_well = await broker.subscribe(failing), await self.receiver(well)
        await broker.publish(messages(1, self.topic()), timeout=self.receive_timeout)
        await self.ack(to_well, await self.take(to_well, 1))
        for failures in range(3):
            delivery = await self.take_one(to_failing)
            assert delivery.failures == failures
            await to_failing.settle([(delivery, NOW)])
        await self.nothing_comes(to_well)

    @case(LETTERS, BrokerOptions(duplicate_window=60.0))
    async def test_what_one_subscription_goes_through_is_not_seen_by_another(self) -> None:
        """One fails twice, is dead-lettered and replayed; the other gets it once. No copy counts as a duplicate."""
        failing, well = self.subscription("failing"), self.subscription("well")
        broker = await self.given(failing, well)
        to_failing, to_well = await broker.subscribe(failing), await self.receiver(well)
        await broker.publish(messages(1, self.topic()), timeout=self.receive_timeout)
        for outcome in (NOW, NOW, MoveToDeadLetters("exhausted", attempts=3)):
            await to_failing.settle([(await self.take_one(to_failing), outcome)])
        (letter,) = await self.letters(broker, failing)
        assert await keeper(broker).replay(failing, [letter.id])
        replayed = await self.take_one(to_failing)
        assert (number(replayed), replayed.failures, replayed.deliveries) == (0, 0, 1)
        await self.ack(to_failing, [replayed])
        seen = await self.take_one(to_well)
        assert (seen.failures, seen.deliveries) == (0, 1)
        await self.ack(to_well, [seen])
        await self.nothing_comes(to_well, to_failing)

    @case(LETTERS)
    async def test_one_call_settles_many(self) -> None:
        """Each has its own outcome."""
        subscription = self.subscription()
        broker = await self.given(subscription)
        receiver = await broker.subscribe(subscription)
        await broker.publish(messages(40, self.topic()), timeout=self.receive_timeout)
        outcomes: tuple[Outcome, ...] = (ACK, RELEASE, NOW, MoveToDeadLetters("rejected"))
        deliveries = await self.take(receiver, 40)
        assert not await receiver.settle([(delivery, outcomes[number(delivery) % 4]) for delivery in deliveries])
        again = {number(delivery): delivery.failures for delivery in await self.take(receiver, 20)}
        assert again == {n: n % 4 - 1 for n in range(40) if n % 4 in (1, 2)}
        letters = await self.letters(broker, subscription)
        assert len(letters) == 10
        await self.nothing_comes(receiver)

    @case(SAFE)
    async def test_settling_nothing_is_fine(self) -> None:
        """So is renewing nothing."""
        subscription = self.subscription()
        receiver = await (await self.given(subscription)).subscribe(subscription)
        assert not await receiver.settle([])
        assert not await receiver.renew([])

    @pytest.mark.parametrize(
        "outcome", [ACK, NOW, MoveToDeadLetters("rejected")], ids=lambda outcome: type(outcome).__name__
    )
    @case(LETTERS)
    async def test_settling_may_be_repeated(self, outcome: Outcome) -> None:
        """As after an error with an unknown outcome: it takes effect once."""
        subscription = self.subscription()
        broker = await self.given(subscription)
        receiver = await broker.subscribe(subscription)
        await broker.publish(messages(2, self.topic()), timeout=self.receive_timeout)
        settlements = [(delivery, outcome) for delivery in await self.take(receiver, 2)]
        await receiver.settle(settlements[:1])
        await receiver.settle(settlements)
        await receiver.settle(settlements)
        if outcome is NOW:
            again = await self.take(receiver, 2)
            assert [(delivery.failures, delivery.deliveries) for delivery in again] == [(1, 2)] * 2
            await self.ack(receiver, again)
        assert len(await self.letters(broker, subscription)) == (2 if isinstance(outcome, MoveToDeadLetters) else 0)
        await self.nothing_comes(receiver)

    @case(SAFE)
    async def test_settling_may_overlap_with_receive(self) -> None:
        """A receive without a timeout does not block settling, and sees its effects."""
        subscription = self.subscription()
        broker = await self.given(subscription)
        receiver = await broker.subscribe(subscription)
        await broker.publish(messages(1, self.topic()), timeout=self.receive_timeout)
        delivery = await self.take_one(receiver)
        waiting = asyncio.ensure_future(self.take_one(receiver))
        await asyncio.sleep(self.quiet_period)
        assert not await receiver.renew([delivery])
        assert not await receiver.settle([(delivery, NOW)])
        assert number(await waiting) == 0
