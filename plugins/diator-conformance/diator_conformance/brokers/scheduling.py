"""Cases: messages that are published now and delivered later."""

import asyncio
from datetime import datetime, timedelta, timezone

from diator.brokers.envelope import OutgoingMessage
from diator.brokers.port import BrokerCapability, RetryAfter
from diator.brokers.refusals import refusals_of
from diator_conformance.brokers.bench import BrokerSuiteBase, case
from diator_conformance.brokers.messages import message, messages, number, numbers


class Scheduling(BrokerSuiteBase):
    """When a message with a due time is delivered, and to whom."""

    def due(self, scheduled: OutgoingMessage, seconds: float) -> OutgoingMessage:
        """Schedule a message for a time from now."""
        when = datetime.now(timezone.utc) + timedelta(seconds=seconds)
        return OutgoingMessage(scheduled.topic, scheduled.envelope, due=when)

    @case(BrokerCapability.SCHEDULES)
    async def test_a_scheduled_message_is_delivered_when_it_is_due(self) -> None:
        """Not before, only once, and later messages do not wait for it."""
        subscription = self.subscription()
        broker = await self.given(subscription)
        receiver = await self.receiver(subscription)
        seconds, loop = self.retry_delay + self.quiet_period, asyncio.get_running_loop()
        began = loop.time()
        later = self.due(message(1, self.topic()), seconds)
        await broker.publish([later, message(2, self.topic())], timeout=self.receive_timeout)
        first, took = await self.take_one(receiver), loop.time() - began
        if took < seconds:  # else both were there: the machine is slow
            assert numbers([first]) == [2]
        second = await self.take_one(receiver)
        assert loop.time() - began >= seconds - 0.02, "it was delivered too early"
        assert sorted(numbers([first, second])) == [1, 2]
        assert {(one.failures, one.deliveries) for one in (first, second)} == {(0, 1)}
        await self.ack(receiver, [first, second])
        await self.nothing_comes(receiver)

    @case(BrokerCapability.SCHEDULES)
    async def test_a_message_that_is_due_already_is_delivered_at_once(self) -> None:
        """A due time in the past is the same as none."""
        subscription = self.subscription()
        broker = await self.given(subscription)
        receiver = await self.receiver(subscription)
        await broker.publish([self.due(message(1, self.topic()), -60.0)], timeout=self.receive_timeout)
        assert numbers([await self.take_one(receiver)]) == [1]

    @case(BrokerCapability.SCHEDULES)
    async def test_scheduled_messages_arrive_in_the_order_in_which_they_are_due(self) -> None:
        """Even if two processes published them in reverse order."""
        subscription = self.subscription()
        broker = await self.given(subscription)
        other = await self.connected()
        receiver = await self.receiver(subscription)
        step, loop = max(self.retry_delay, 0.1), asyncio.get_running_loop()
        while True:
            began = loop.time()
            for place, one in ((3, broker), (2, other), (1, broker)):
                due = self.due(message(place, self.topic()), began + place * step - loop.time())
                await one.publish([due], timeout=self.receive_timeout)
            in_time = loop.time() - began < step
            came = [(await self.take_one(receiver)) for _ in range(3)]
            await self.ack(receiver, came)
            if in_time:
                break
            step *= 4  # the machine is slow: the first was due before all were published
        assert numbers(came) == [1, 2, 3]

    @case(BrokerCapability.SCHEDULES)
    async def test_every_subscription_gets_a_scheduled_message(self) -> None:
        """Many at a time, and each of them once."""
        first, second = self.subscription("first"), self.subscription("second")
        broker = await self.given(first, second)
        later = [
            self.due(one, self.retry_delay + index % 3 * 0.05) for index, one in enumerate(messages(30, self.topic()))
        ]
        await broker.publish(later, timeout=self.receive_timeout)
        for subscription in (first, second):
            receiver = await self.receiver(subscription)
            came = await self.take(receiver, 30)
            assert sorted(numbers(came)) == list(range(30))
            await self.ack(receiver, came)
            await self.nothing_comes(receiver)

    @case(BrokerCapability.SCHEDULES | BrokerCapability.ORDER_BY_KEY)
    async def test_a_scheduled_message_takes_its_place_when_it_is_due(self) -> None:
        """It does not hold its key before, and comes after messages published until then."""
        subscription = self.subscription(ordered=True)
        broker = await self.given(subscription)
        receiver = await self.receiver(subscription)
        seconds, loop = self.retry_delay + self.quiet_period, asyncio.get_running_loop()
        while True:
            began = loop.time()
            await broker.publish([self.due(message(1, self.topic(), "k"), seconds)], timeout=self.receive_timeout)
            await broker.publish(messages(2, self.topic(), "k", first=2), timeout=self.receive_timeout)
            in_time = loop.time() - began < seconds
            came = await self.take(receiver, 2)
            await self.ack(receiver, came)
            came.append(await self.take_one(receiver))
            await self.ack(receiver, came[2:])
            if in_time:
                break
            seconds *= 4  # the machine is slow: the first was due before the others were published
        assert numbers(came) == [2, 3, 1]

    @case(BrokerCapability.SCHEDULES | BrokerCapability.DURABLE)
    async def test_a_scheduled_message_survives_the_process_that_published_it(self) -> None:
        """It becomes due while no connection is open, and is delivered to the next receiver."""
        subscription = self.subscription()
        broker = await self.given(subscription)
        await broker.publish([self.due(message(1, self.topic()), self.retry_delay)], timeout=self.receive_timeout)
        await broker.aclose()
        receiver = await (await self.connected()).subscribe(subscription)
        delivery = await self.take_one(receiver)
        assert numbers([delivery]) == [1]
        await self.ack(receiver, [delivery])

    @case(BrokerCapability.SCHEDULES | BrokerCapability.DELAYED_RETRY)
    async def test_what_is_scheduled_for_a_topic_is_not_a_retry_of_a_subscription_of_its_name(self) -> None:
        """The two may have one name, unless the broker refuses it. A retry is delivered to its subscription only."""
        named, other = self.subscription("orders", "orders"), self.subscription("other", "orders")
        if list(refusals_of(self.new_broker(), [named, other], self.topics_of(named))):
            return
        broker = await self.given(named, other)
        receivers = [await broker.subscribe(named), await broker.subscribe(other)]
        await broker.publish(messages(1, self.topic()), timeout=self.receive_timeout)
        retried, settled = [await self.take_one(receiver) for receiver in receivers]
        await receivers[0].settle([(retried, RetryAfter(self.retry_delay))])
        await self.ack(receivers[1], [settled])
        scheduled = self.due(message(1, self.topic()), self.retry_delay)
        await broker.publish([scheduled], timeout=self.receive_timeout)
        taken = await self.take(receivers[0], 2)
        assert sorted((number(one), one.failures) for one in taken) == [(0, 1), (1, 0)]
        assert numbers([await self.take_one(receivers[1])]) == [1]
        await self.nothing_comes(*receivers)
