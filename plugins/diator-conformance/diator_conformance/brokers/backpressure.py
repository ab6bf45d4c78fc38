"""Cases: a queue that is full makes its publishers wait."""

import asyncio
from collections.abc import Sequence

import pytest

from diator.brokers.envelope import OutgoingMessage
from diator.brokers.port import Broker, BrokerCapability
from diator.errors import BrokerUnavailableError, NotPublishedError
from diator_conformance.brokers.bench import BrokerOptions, BrokerSuiteBase, case
from diator_conformance.brokers.messages import message, messages, number, numbers

BOUNDED = BrokerCapability.BACKPRESSURE | BrokerCapability.ACKNOWLEDGED
SMALL = BrokerOptions(capacity=4)
MANY = 12
"""More than there is room for, and more than twice as many, in case that the broker is generous."""


class Room(BrokerSuiteBase):
    """Backpressure: publishers wait while a queue is full."""

    @case(BOUNDED, SMALL)
    async def test_publishing_waits_for_room(self) -> None:
        """It continues when messages are acknowledged, and everything arrives."""
        subscription = self.subscription()
        broker = await self.given(subscription)
        receiver = await self.receiver(subscription)
        sending = asyncio.ensure_future(broker.publish(messages(MANY, self.topic()), timeout=self.receive_timeout))
        await asyncio.sleep(self.quiet_period)
        assert not sending.done(), f"{MANY} messages were stored where {SMALL.capacity} have room"
        came: list[int] = []
        while len(came) < MANY:
            batch = await self.receive(receiver, 3)
            came += numbers(batch)
            await self.ack(receiver, batch)
        await sending
        assert sorted(came) == list(range(MANY))

    @case(BOUNDED, SMALL)
    async def test_who_has_waited_too_long_is_told_what_did_not_leave(self) -> None:
        """Precisely: other messages arrive, and these can be published again."""
        subscription = self.subscription()
        broker = await self.given(subscription)
        sent = messages(MANY, self.topic())
        started = asyncio.get_running_loop().time()
        unsent = await self._too_many(broker, sent)
        assert asyncio.get_running_loop().time() - started < self.quiet_period + self.receive_timeout
        stored = [one for one in sent if one not in unsent]
        receiver = await broker.subscribe(subscription)
        deliveries = await self.take(receiver, len(stored))
        assert sorted(numbers(deliveries)) == [int(one.id) for one in stored]
        await self.nothing_comes(receiver)
        await self.ack(receiver, deliveries)
        await broker.publish(unsent[:1], timeout=self.receive_timeout)
        assert numbers(await self.take(receiver, 1)) == [int(unsent[0].id)]

    @case(BOUNDED, SMALL)
    async def test_a_message_is_in_all_subscriptions_or_in_none(self) -> None:
        """If one is full, the others do not get messages that were reported as unsent."""
        slow, quick = self.subscription("slow"), self.subscription("quick")
        broker = await self.given(slow, quick)
        to_quick = await broker.subscribe(quick)
        sent = messages(MANY, self.topic())
        sending = asyncio.ensure_future(self._too_many(broker, sent))
        seen: list[int] = []
        while not sending.done():
            receiving = asyncio.ensure_future(to_quick.receive(3))
            await asyncio.wait([receiving, sending], return_when=asyncio.FIRST_COMPLETED)
            receiving.cancel()
            await asyncio.wait([receiving])
            if not receiving.cancelled():
                seen += numbers(receiving.result())
                await self.ack(to_quick, receiving.result())
        stored = [int(one.id) for one in sent if one not in sending.result()]
        if len(seen) < len(stored):
            seen += numbers(await self.take(to_quick, len(stored) - len(seen)))
        assert sorted(seen) == stored
        assert sorted(numbers(await self.take(await broker.subscribe(slow), len(stored)))) == stored
        await self.nothing_comes(to_quick)

    @case(BOUNDED, SMALL)
    async def test_who_does_not_wait_for_room_never_waits(self) -> None:
        """Its message is stored regardless, because a consumer that waited here would wait for itself."""
        subscription = self.subscription()
        broker = await self.given(subscription)
        await self._too_many(broker, messages(MANY, self.topic()))
        more = [message(number_, self.topic()) for number_ in range(MANY, 2 * MANY)]
        sending = asyncio.ensure_future(broker.publish(more, timeout=3600.0, wait_for_room=False))
        await asyncio.wait([sending], timeout=self.receive_timeout)
        assert sending.done(), "it waits for room"
        await sending
        receiver = await broker.subscribe(subscription)
        seen: set[int] = set()
        while not seen >= set(range(MANY, 2 * MANY)):
            delivery = await self.take_one(receiver)
            seen.add(number(delivery))
            await self.ack(receiver, [delivery])

    @case(BOUNDED, SMALL)
    async def test_a_full_queue_whose_consumers_publish_to_it_empties(self) -> None:
        """Each message causes another one until all were handled; publishers outside wait until then."""
        subscription = self.subscription()
        broker = await self.given(subscription)
        sending = asyncio.ensure_future(broker.publish(messages(MANY, self.topic()), timeout=self.receive_timeout))
        receivers = [await broker.subscribe(subscription), await self.receiver(subscription)]
        seen: list[int] = []

        async def consume(index: int) -> None:
            while len(seen) < 2 * MANY:
                for delivery in await receivers[index].receive(2):
                    seen.append(number(delivery))
                    if number(delivery) < MANY:
                        follow_up = message(MANY + number(delivery), self.topic())
                        await broker.publish([follow_up], timeout=self.receive_timeout, wait_for_room=False)
                    await self.ack(receivers[index], [delivery])
            for receiver in receivers:
                await receiver.aclose()

        await asyncio.gather(consume(0), consume(1), sending)
        assert sorted(seen) == list(range(2 * MANY))

    async def _too_many(self, broker: Broker, sent: Sequence[OutgoingMessage]) -> list[OutgoingMessage]:
        with pytest.raises(NotPublishedError) as raised:
            await broker.publish(sent, timeout=self.quiet_period)
        assert isinstance(raised.value.__cause__, BrokerUnavailableError)
        assert not raised.value.unknown, "the broker knows that there was no room"
        assert raised.value.unsent
        return list(raised.value.unsent)
