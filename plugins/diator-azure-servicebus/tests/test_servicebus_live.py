"""A round trip on a namespace or the official emulator, whose connection string is in ``DIATOR_TEST_SERVICEBUS``.

Without it the server for tests stands in. The entities must exist; where they do not, the failure names them. They
are those of `SUBSCRIPTIONS`, as ``diator-azure plan`` prints them; the emulator has the same in its configuration.
"""

import asyncio
import os
from collections.abc import AsyncGenerator, Iterator
from uuid import uuid4

import pytest
from diator_azure_servicebus import ServiceBusBroker
from servicebus_test_server import Queue, ServiceBusServer, Subscription, Topic

from diator import brokers
from diator.brokers import (
    ACK,
    Delivery,
    Envelope,
    MoveToDeadLetters,
    OutgoingMessage,
    Receiver,
    RetryAfter,
    dead_letters_of,
    parse_envelope,
)

SOLD = brokers.Topic("diator-live.sold", ("sold",))
MAIL = brokers.Subscription("diator-live.mail", (SOLD,))
BOOK = brokers.Subscription("diator-live.book", (SOLD,), ordered=True)
SUBSCRIPTIONS = (MAIL, BOOK)
STAND_IN: list[Queue | Topic] = [
    Queue(MAIL.name),
    Queue(BOOK.name, sessions=True),
    Queue(f"{MAIL.name}.retry", duplicate_window=600, forward_to=MAIL.name),
    Topic(SOLD.name, [Subscription(one.name, forward_to=one.name) for one in SUBSCRIPTIONS]),
]


@pytest.fixture
def connection_string() -> Iterator[str]:
    given = os.environ.get("DIATOR_TEST_SERVICEBUS")
    if given:
        yield given
        return
    with ServiceBusServer(STAND_IN) as server:
        yield server.connection_string


@pytest.fixture
async def broker(connection_string: str) -> AsyncGenerator[ServiceBusBroker, None]:
    """A broker that may create nothing, as with the emulator."""
    broker = ServiceBusBroker(connection_string, manage=False)
    await broker.connect()
    assert await broker.apply(SUBSCRIPTIONS, [SOLD]) == []
    yield broker
    await broker.aclose()


async def take(receiver: Receiver, mine: set[str]) -> Delivery:
    """Receive one of this run; what was left by others is removed."""
    while True:
        for delivery in await asyncio.wait_for(receiver.receive(1), 60):
            if parse_envelope(delivery.headers, delivery.body).id in mine:
                return delivery
            await receiver.settle([(delivery, ACK)])


async def test_what_is_published_is_retried_parked_replayed_and_handled_in_order(broker: ServiceBusBroker) -> None:
    """By both handlers, each for itself."""
    ids = [f"{uuid4()}" for _ in range(3)]
    messages = [
        OutgoingMessage(
            SOLD.name, Envelope(specversion="1.0", id=each, source="live", type="sold", partitionkey=ids[0])
        )
        for each in ids
    ]
    await broker.publish(messages, timeout=30)
    for subscription in SUBSCRIPTIONS:
        receiver = await broker.subscribe(subscription)
        first = await take(receiver, {ids[0]} if subscription.ordered else {*ids})
        assert not await receiver.settle([(first, RetryAfter(0.5))])
        seen: dict[str, Delivery] = {}
        while len(seen) < 3:
            delivery = await take(receiver, {*ids})
            seen[parse_envelope(delivery.headers, delivery.body).id] = delivery
            assert not await receiver.renew([delivery])
            assert not await receiver.settle([(delivery, MoveToDeadLetters("rejected") if delivery.failures else ACK)])
        again = seen[parse_envelope(first.headers, first.body).id]
        assert (again.failures, again.deliveries) == (1, 2)
        assert sorted(one.failures for one in seen.values()) == [0, 0, 1]
        if subscription.ordered:
            assert [*seen] == ids
        letters = [one async for one in dead_letters_of(broker, subscription)]
        (letter,) = [one for one in letters if parse_envelope(one.headers, one.body).id in ids]
        assert await broker.replay(subscription, [letter.id])
        replayed = await take(receiver, {*ids})
        assert (replayed.failures, replayed.deliveries, replayed.headers) == (0, 1, first.headers)
        assert not await receiver.settle([(replayed, ACK)])
        await receiver.aclose()
