"""Cases: who gets what is published, and whether it arrives as it was."""

import asyncio
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

import msgspec
import pytest

from diator.brokers.envelope import Envelope, OutgoingMessage
from diator.brokers.port import BrokerCapability, FindsUnsubscribed, MoveToDeadLetters, RetryAfter
from diator.errors import NotPublishedError
from diator_conformance.brokers.bench import BrokerOptions, BrokerSuiteBase, case, keeper
from diator_conformance.brokers.messages import envelope_of, message, messages, number, numbers

ODD = {
    "nothing": "",
    "a space": " ",
    "letters of the world": "Grüße, 世界, 🦜, \u202eright to left",
    "a zero": "before\0after",
    "control characters": "".join(map(chr, range(1, 32))),
    "quotes": "\"'`\\%s{}$(x)",
    "lines": "a\r\nb: c\n\n",
    "long": "x" * 20_000,
}
"""Values that something on the way may take for something else."""

WINDOW = BrokerOptions(duplicate_window=60.0)


def odd_message(topic: str, text: str) -> OutgoingMessage:
    """Make a message with this text wherever the users' own texts can stand."""
    fields: dict[str, Any] = {"headers": text, "correlation": text, "causation": text, "kind": "ecst"}
    attributes = {f"diator{name}": value for name, value in fields.items()}
    known: dict[str, Any] = {"source": text or "/", "type": f"t{text}", "partitionkey": text, "tracestate": text}
    raw = msgspec.Raw(msgspec.json.encode({"text": text, "more": [1.5, None, True]}))
    return OutgoingMessage(
        topic,
        Envelope(
            specversion="1.0", id="1", diatorversion=7, **known, **attributes, time=datetime.now(timezone.utc), data=raw
        ),
    )


def _keeps_the_future(headers: Mapping[str, str], body: bytes) -> None:
    found = headers if "specversion" in headers else msgspec.json.decode(body)
    assert found.get("futureattribute") == "from tomorrow", "an attribute that is not known has gone"
    assert found.get("dataschema") == "https://example.org/%C3%A4"


class Publishing(BrokerSuiteBase):
    """Publishing: each subscription gets its messages, unchanged."""

    @case()
    async def test_every_subscription_of_a_topic_gets_each_message(self) -> None:
        """Subscriptions do not compete with each other."""
        first, second = self.subscription("first"), self.subscription("second")
        broker = await self.given(first, second)
        receivers = [await self.receiver(first), await self.receiver(second)]
        await broker.publish(messages(5, self.topic()), timeout=self.receive_timeout)
        for receiver in receivers:
            deliveries = await self.take(receiver, 5)
            assert sorted(numbers(deliveries)) == [0, 1, 2, 3, 4]
            await self.ack(receiver, deliveries)
        await self.nothing_comes(*receivers)

    @case()
    async def test_other_topics_are_not_heard(self) -> None:
        """A subscription gets only messages of its own topics, each delivery with the name of its topic."""
        both, one = self.subscription("both", "orders", "bills"), self.subscription("one", "bills")
        broker = await self.given(both, one)
        to_both, to_one = await broker.subscribe(both), await broker.subscribe(one)
        orders, bills = self.topic("orders"), self.topic("bills")
        await broker.publish([message(1, orders), message(2, bills)], timeout=self.receive_timeout)
        assert numbers(await self.take(to_one, 1)) == [2]
        found = {number(delivery): delivery.topic for delivery in await self.take(to_both, 2)}
        assert found == {1: orders.name, 2: bills.name}
        await self.nothing_comes(to_one, to_both)

    @pytest.mark.parametrize("text", ODD.values(), ids=ODD.keys())
    @case()
    async def test_any_text_arrives_as_it_was(self, text: str) -> None:
        """Attributes, headers and data are unchanged, to the byte."""
        subscription = self.subscription(ordered=BrokerCapability.ORDER_BY_KEY in self.new_broker().capabilities)
        broker = await self.given(subscription)
        receiver = await broker.subscribe(subscription)
        sent = odd_message(self.topic().name, text)
        await broker.publish([sent], timeout=self.receive_timeout)
        delivery = await self.take_one(receiver)
        assert delivery.read_error is None
        assert envelope_of(delivery) == sent.envelope
        assert bytes(envelope_of(delivery).data) == sent.data

    @case()
    async def test_attributes_that_nobody_here_knows_survive(self) -> None:
        """Newer apps may set them: they survive publishing of stored bytes, a retry, dead-lettering and a replay."""
        subscription = self.subscription()
        broker = await self.given(subscription)
        receiver = await broker.subscribe(subscription)
        stored = message(1, self.topic(), "a").structured
        extended = b'{"futureattribute":"from tomorrow","dataschema":"https://example.org/%C3%A4",' + stored[1:]
        await broker.publish([OutgoingMessage.from_bytes(self.topic().name, extended)], timeout=self.receive_timeout)
        delivery = await self.take_one(receiver)
        _keeps_the_future(delivery.headers, delivery.body)
        assert number(delivery) == 1
        if BrokerCapability.DELAYED_RETRY in broker.capabilities:
            await receiver.settle([(delivery, RetryAfter(self.retry_delay))])
            delivery = await self.take_one(receiver)
            _keeps_the_future(delivery.headers, delivery.body)
        if BrokerCapability.DEAD_LETTERS in broker.capabilities:
            await receiver.settle([(delivery, MoveToDeadLetters("rejected"))])
            (letter,) = await self.letters(broker, subscription)
            _keeps_the_future(letter.headers, letter.body)
            await keeper(broker).replay(subscription, [letter.id])
            delivery = await self.take_one(receiver)
            _keeps_the_future(delivery.headers, delivery.body)

    @case()
    async def test_a_delivery_has_the_key_of_its_message(self) -> None:
        """Or none, if the broker does not know it."""
        subscription = self.subscription(ordered=BrokerCapability.ORDER_BY_KEY in self.new_broker().capabilities)
        broker = await self.given(subscription)
        receiver = await broker.subscribe(subscription)
        keys = {0: "a", 1: None, 2: "ä b\n", 3: "x" * 300}
        await broker.publish([message(at, self.topic(), key) for at, key in keys.items()], timeout=self.receive_timeout)
        for delivery in await self.take(receiver, len(keys)):
            assert delivery.key in (None, keys[number(delivery)])

    @case()
    async def test_a_first_delivery_has_no_failures(self) -> None:
        """Counting starts with no failure and one delivery."""
        subscription = self.subscription()
        broker = await self.given(subscription)
        receiver = await broker.subscribe(subscription)
        await broker.publish(messages(1, self.topic()), timeout=self.receive_timeout)
        delivery = await self.take_one(receiver)
        assert (delivery.failures, delivery.deliveries) == (0, 1)

    @case()
    async def test_what_nobody_has_subscribed_to_is_dropped(self) -> None:
        """Publishing to such a topic is not an error; a later subscription gets only later messages."""
        broker = await self.connected()
        await broker.publish(messages(3, self.topic()), timeout=self.receive_timeout)
        subscription = self.subscription()
        await self.given(subscription)
        receiver = await self.receiver(subscription)
        await broker.publish(messages(1, self.topic(), first=7), timeout=self.receive_timeout)
        assert numbers(await self.take(receiver, 1)) == [7]
        await self.nothing_comes(receiver)

    @case()
    async def test_topics_without_a_subscription_are_found(self) -> None:
        """A broker that has `FindsUnsubscribed` distinguishes them from those with a worker, with any content."""
        subscription = self.subscription()
        broker = await self.given(subscription)
        if not isinstance(broker, FindsUnsubscribed):
            pytest.skip("the broker has no unsubscribed()")
        receiver = await self.receiver(subscription)
        taken, other, third = self.topic(), self.topic("bills"), self.topic("never")
        for topic in (taken, other):
            for key in (None, "a"):
                await broker.publish(messages(1, topic, key=key), timeout=self.receive_timeout)
        await self.ack(receiver, await self.take(receiver, 2))
        for _ in range(2):  # looking creates nothing
            found = await broker.unsubscribed([taken.name, other.name, third.name])
            assert sorted(found) == sorted([other.name, third.name])
        assert not list(await broker.unsubscribed([taken.name]))

    @case(BrokerCapability.ACKNOWLEDGED)
    async def test_a_subscription_gets_all_from_the_time_that_it_was_applied(self) -> None:
        """It need not have a receiver."""
        subscription = self.subscription()
        broker = await self.given(subscription)
        await broker.publish(messages(3, self.topic()), timeout=self.receive_timeout)
        assert sorted(numbers(await self.take(await self.receiver(subscription), 3))) == [0, 1, 2]

    @case()
    async def test_nothing_can_be_published(self) -> None:
        """An empty batch is not an error."""
        await (await self.given(self.subscription())).publish([], timeout=self.receive_timeout)

    @case()
    async def test_calls_of_publish_may_overlap(self) -> None:
        """Many calls at a time, from two processes: each message arrives once."""
        subscription = self.subscription()
        broker = await self.given(subscription)
        other = await self.connected()
        receiver = await broker.subscribe(subscription)
        batches = [messages(10, self.topic(), first=10 * index) for index in range(20)]
        brokers = [broker, other] * 10
        sends = [one.publish(batch, timeout=self.receive_timeout) for one, batch in zip(brokers, batches, strict=True)]
        await asyncio.gather(*sends)
        assert sorted(numbers(await self.take(receiver, 200))) == list(range(200))

    @case()
    async def test_a_message_may_be_as_large_as_the_limit(self) -> None:
        """A message of `max_message_bytes` arrives; a larger one arrives or is rejected, but is never lost."""
        subscription = self.subscription()
        broker = await self.given(subscription)
        limit = broker.max_message_bytes
        if limit is None:
            pytest.skip("the broker has no limit")
        receiver = await broker.subscribe(subscription)
        overhead = len(message(1, self.topic(), data=b'""').structured)
        fits, over = (message(1, self.topic(), data=b'"%s"' % (b"x" * (limit - overhead + more))) for more in (0, 1))
        await broker.publish([fits], timeout=self.receive_timeout)
        assert envelope_of(await self.take_one(receiver)) == fits.envelope
        unsent: tuple[OutgoingMessage, ...] = ()
        try:
            await broker.publish([over], timeout=self.receive_timeout)
        except NotPublishedError as error:
            unsent = error.unsent
        assert unsent == (over,) or envelope_of(await self.take_one(receiver)) == over.envelope

    @case(BrokerCapability.DUPLICATE_DETECTION, WINDOW)
    async def test_a_duplicate_is_dropped(self) -> None:
        """A message published twice, as after an error, arrives once; on another topic it is another message."""
        subscription = self.subscription("handler", "orders", "bills")
        broker = await self.given(subscription)
        receiver = await broker.subscribe(subscription)
        orders, bills = self.topic("orders"), self.topic("bills")
        await broker.publish([message(1, orders), message(2, orders)], timeout=self.receive_timeout)
        await broker.publish([message(2, orders), message(1, bills), message(3, orders)], timeout=self.receive_timeout)
        came = [(delivery.topic, number(delivery)) for delivery in await self.take(receiver, 4)]
        assert sorted(came) == sorted([(orders.name, 1), (orders.name, 2), (orders.name, 3), (bills.name, 1)])
        await self.nothing_comes(receiver)
