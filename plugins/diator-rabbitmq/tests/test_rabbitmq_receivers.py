"""What the suite can't ask: answers that come late or at an unlucky moment, and queues that are gone."""

import asyncio
import contextlib
import json
import sys
import time
import uuid
import zlib
from typing import Any

import aiormq
import pytest
from aiormq import exceptions as amqp
from diator_conformance.brokers.messages import messages, numbers
from diator_rabbitmq import RabbitBroker
from diator_rabbitmq.testing import MISSING, RabbitServer, is_missing, shared_server

from diator.brokers import ACK, Delivery, Receiver, RetryAfter, Subscription, Topic
from diator.errors import BrokerError, BrokerUnavailableError, NotPublishedError

pytestmark = [pytest.mark.skipif(is_missing(), reason=MISSING), pytest.mark.once]
TOPIC = Topic("orders", ("thing.happened",))
PLAIN = Subscription("bill", (TOPIC,))
ORDERED = Subscription("ship", (TOPIC,), ordered=True)
PARTITION = zlib.crc32(b"a") % 8
"""Of the messages whose key is "a"."""


class Own(RabbitBroker):
    """A broker of its own on the shared server."""

    def __init__(self, **settings: Any) -> None:
        self.prefix = f"t{uuid.uuid4().hex[:12]}"
        super().__init__(shared_server().url, prefix=self.prefix, **settings)


async def opened(**settings: Any) -> Own:
    broker = Own(**settings)
    await broker.connect()
    return broker


async def at_server(broker: Own, call: str, name: str, **options: Any) -> Any:
    """Do something with a queue, as an operator could."""
    connection: Any = aiormq.Connection(shared_server().url)
    await connection.connect()
    channel = await connection.channel()
    answer = await getattr(channel, call)(f"{broker.prefix}:{name}", **options)
    await connection.close()
    return answer


async def take(receiver: Receiver, count: int = 1) -> list[Delivery]:
    """Receive, also if it fails at first."""
    found: list[Delivery] = []
    while len(found) < count:
        try:
            found += await asyncio.wait_for(receiver.receive(count), 30)
        except BrokerError:
            await asyncio.sleep(0.1)
    return found


@pytest.mark.parametrize("subscription", [PLAIN, ORDERED], ids=["unordered", "ordered"])
async def test_messages_that_come_with_the_answer_to_consuming_are_delivered(
    subscription: Subscription, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing else comes that would have the receiver look again."""
    consume: Any = aiormq.Channel.basic_consume

    async def consume_and_wait(channel: Any, *given: Any, **options: Any) -> Any:
        answer = await consume(channel, *given, **options)
        await asyncio.sleep(0.3)  # as in a busy process, which sees the answer after the messages
        return answer

    broker = await opened()
    await broker.apply([subscription])
    await broker.publish(messages(3, TOPIC, "a"), timeout=30)
    monkeypatch.setattr(aiormq.Channel, "basic_consume", consume_and_wait)
    receiver = await broker.subscribe(subscription)
    taken = await asyncio.wait_for(receiver.receive(3), 20)
    assert numbers(taken) == [0, 1, 2]
    await broker.aclose()


async def test_receiver_that_settles_while_it_asks_for_more_gets_what_it_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And not all that waits, which other workers could handle."""
    ask: Any = aiormq.Channel.basic_qos

    async def ask_and_wait(channel: Any, *given: Any, **options: Any) -> Any:
        answer = await ask(channel, *given, **options)
        await asyncio.sleep(0.3)
        return answer

    broker = await opened()
    await broker.apply([PLAIN])
    receiver = await broker.subscribe(PLAIN)
    await broker.publish(messages(1, TOPIC), timeout=30)
    (taken,) = await take(receiver)
    await broker.publish(messages(300, TOPIC, first=1), timeout=30)
    monkeypatch.setattr(aiormq.Channel, "basic_qos", ask_and_wait)
    receiving = asyncio.ensure_future(receiver.receive(10))
    await asyncio.sleep(0.1)
    await receiver.settle([(taken, ACK)])
    await receiving
    waiting = await at_server(broker, "queue_declare", "queue:bill", passive=True)
    assert waiting.message_count > 250
    await broker.aclose()


async def test_receiver_whose_notes_are_gone_leaves_all_it_had_when_it_closes() -> None:
    broker = await opened()
    await broker.apply([ORDERED])
    receiver = await broker.subscribe(ORDERED)
    await broker.publish(messages(1, TOPIC, "a"), timeout=30)
    await take(receiver)
    await at_server(broker, "queue_delete", f"notes{PARTITION}:ship")
    await receiver.aclose()
    await broker.apply([ORDERED])
    assert numbers(await take(await broker.subscribe(ORDERED))) == [0]
    await broker.aclose()


async def test_notes_on_a_message_that_come_together_are_replaced_one_by_one() -> None:
    """As those of an owner that was killed; a note that is acknowledged twice would close the channel."""
    broker = await opened()
    await broker.apply([ORDERED])
    receiver = await broker.subscribe(ORDERED)
    await broker.publish([*messages(1, TOPIC, "a"), *messages(1, TOPIC, "b", first=1)], timeout=30)
    retried, held = sorted(await take(receiver, 2), key=lambda one: numbers([one]))
    await receiver.settle([(retried, RetryAfter(60.0))])
    connection: Any = aiormq.Connection(shared_server().url)
    await connection.connect()
    channel = await connection.channel(publisher_confirms=False)
    queue = f"{broker.prefix}:notes{PARTITION}:ship"
    for failures in range(2, 6):
        note = json.dumps(["note", retried.receipt.id, failures, failures, 0.0]).encode()
        await channel.basic_publish(note, routing_key=queue)
    time.sleep(0.5)  # noqa: ASYNC251 - so that all are read at once
    receiving = asyncio.ensure_future(receiver.receive(1))  # which would open the channels again
    await asyncio.sleep(1.0)
    assert not await receiver.renew([held])
    receiving.cancel()
    await asyncio.wait([receiving])
    await connection.close()
    await broker.aclose()


async def test_partition_behind_a_retry_reads_on_while_others_have_work() -> None:
    """Its other keys do not wait until there is nothing else to do."""
    busy = next(key for key in map(str, range(99)) if zlib.crc32(key.encode()) % 8 != PARTITION)
    same = next(key for key in map(str, range(99)) if zlib.crc32(key.encode()) % 8 == PARTITION)
    broker = await opened()
    await broker.apply([ORDERED])
    receiver = await broker.subscribe(ORDERED)
    await broker.publish(messages(1, TOPIC, "a"), timeout=30)
    (retried,) = await take(receiver)
    await receiver.settle([(retried, RetryAfter(60.0))])
    for sent in (messages(250, TOPIC, "a", first=1), messages(1, TOPIC, same, first=999), messages(400, TOPIC, busy)):
        await broker.publish(sent, timeout=30)
    came: list[int] = []
    while 999 not in came:
        (taken,) = await take(receiver)
        came += numbers([taken])
        assert not await receiver.settle([(taken, ACK)])
    assert len(came) < 300
    await broker.aclose()


@pytest.mark.skipif(sys.version_info < (3, 11), reason="the client for Python 3.10 does not report a deleted queue")
async def test_receiver_that_opens_its_partitions_again_counts_once() -> None:
    """Else the others would leave more and more partitions to receivers that do not exist."""
    broker = await opened()
    await broker.apply([ORDERED])
    receiver = await broker.subscribe(ORDERED)
    for number in range(3):
        await broker.publish(messages(1, TOPIC, "a", first=number), timeout=30)
        (taken,) = await take(receiver)
        await receiver.settle([(taken, ACK)])
        await at_server(broker, "queue_delete", f"notes{PARTITION}:ship")
        with pytest.raises(BrokerError, match="notes"):
            await asyncio.wait_for(receiver.receive(1), 30)
        await broker.apply([ORDERED])
    await broker.publish(messages(1, TOPIC, "a", first=3), timeout=30)
    assert numbers(await take(receiver)) == [3]
    members = await at_server(broker, "queue_declare", "members:ship", passive=True)
    assert members.consumer_count == 1
    await broker.aclose()


async def test_receiver_that_cannot_be_counted_says_so_and_goes_on_once_it_can() -> None:
    broker = await opened()
    await broker.apply([ORDERED])
    receiver = await broker.subscribe(ORDERED)
    await broker.publish(messages(1, TOPIC, "a"), timeout=30)
    (taken,) = await take(receiver)
    await receiver.settle([(taken, ACK)])
    await at_server(broker, "queue_delete", "members:ship")
    with pytest.raises(BrokerError, match="members"):
        await asyncio.wait_for(receiver.receive(1), 30)
    await broker.apply([ORDERED])
    await broker.publish(messages(1, TOPIC, "a", first=1), timeout=30)
    assert numbers(await take(receiver)) == [1]
    await broker.aclose()


async def test_partitions_of_which_one_fails_at_first_are_all_owned_in_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As after a restart of the server, which opens one queue after the other."""
    consume: Any = aiormq.Channel.basic_consume
    open_channel: Any = aiormq.Connection.channel
    failed: list[str] = []
    opens = 0

    async def open_late(connection: Any, *given: Any, **options: Any) -> Any:
        nonlocal opens
        opens += 1
        await asyncio.sleep(0.6 if 3 < opens < 9 else 0.0)
        return await open_channel(connection, *given, **options)

    async def fail_once(channel: Any, queue: str, *given: Any, **options: Any) -> Any:
        if not failed:
            failed.append(queue)
            raise amqp.ChannelNotFoundEntity(queue)
        return await consume(channel, queue, *given, **options)

    broker = await opened()
    await broker.apply([ORDERED])
    for number in range(40):
        await broker.publish(messages(1, TOPIC, f"key {number}", first=number), timeout=30)
    monkeypatch.setattr(aiormq.Channel, "basic_consume", fail_once)
    monkeypatch.setattr(aiormq.Connection, "channel", open_late)
    receiver = await broker.subscribe(ORDERED)
    taken = await take(receiver, 40)
    assert sorted(numbers(taken)) == list(range(40))
    receiving = asyncio.ensure_future(receiver.receive(1))
    await asyncio.sleep(1.0)  # what the first attempt had begun would break the second
    assert not await receiver.settle([(one, ACK) for one in taken])
    receiving.cancel()
    await asyncio.wait([receiving])
    await broker.aclose()


async def test_process_that_paused_longer_than_the_timeout_keeps_its_connection() -> None:
    """As on a machine that was suspended: the answer is in the socket by then."""
    broker = await opened(timeout=1.0)
    await broker.apply([PLAIN])
    receiver = await broker.subscribe(PLAIN)
    await broker.publish(messages(1, TOPIC), timeout=30)
    (taken,) = await take(receiver)
    for steps in range(4, 24, 4):
        calls: list[Any] = [broker.status([PLAIN]), broker.publish(messages(1, TOPIC, first=steps), timeout=1.0)]
        tasks = [asyncio.ensure_future(call) for call in calls]
        for _ in range(steps):
            await asyncio.sleep(0)
        time.sleep(1.1)  # noqa: ASYNC251 - it stands still
        await asyncio.gather(*tasks)
    assert not await receiver.settle([(taken, ACK)])
    await broker.aclose()


@pytest.mark.parametrize("subscription", [PLAIN, ORDERED], ids=["unordered", "ordered"])
async def test_receiver_closes_in_time_if_the_server_says_nothing(subscription: Subscription) -> None:
    """The engine waits for 5 seconds."""
    with RabbitServer() as server:
        broker = RabbitBroker(server.url)
        await broker.connect()
        await broker.apply([subscription])
        receiver = await broker.subscribe(subscription)
        await broker.publish(messages(1, TOPIC, "a"), timeout=30)
        (taken,) = await take(receiver)
        server.pause()
        await asyncio.sleep(0.5)  # on a busy machine it goes on for a while
        settling = asyncio.ensure_future(receiver.settle([(taken, ACK)]))
        await asyncio.sleep(0.1)
        began = time.monotonic()
        await receiver.aclose()
        assert time.monotonic() - began < 5.0
        with contextlib.suppress(BrokerUnavailableError):
            assert await settling == [taken]
        server.resume()
        await broker.aclose()


async def test_publishing_that_is_late_takes_no_other_with_it() -> None:
    """Both use one channel, and the second has more time."""
    with RabbitServer() as server:
        broker = RabbitBroker(server.url)
        await broker.connect()
        await broker.apply([PLAIN])
        await broker.publish(messages(1, TOPIC), timeout=30)
        server.pause()
        await asyncio.sleep(0.5)  # on a busy machine it goes on for a while
        other = asyncio.ensure_future(broker.publish(messages(1, TOPIC, first=1), timeout=30))
        with pytest.raises(NotPublishedError):
            await broker.publish(messages(1, TOPIC, first=2), timeout=0.2)
        await asyncio.sleep(0.2)
        server.resume()
        await other
        await broker.aclose()


async def test_retry_finds_another_queue_if_the_server_can_not_open_its_own() -> None:
    """RabbitMQ 3.10 loses track of a queue if it is killed right after this was created."""
    with RabbitServer() as server:
        broker = RabbitBroker(server.url, timeout=3.0)
        await broker.connect()
        await broker.apply([PLAIN])
        receiver = await broker.subscribe(PLAIN)
        await broker.publish(messages(1, TOPIC), timeout=30)
        (taken,) = await take(receiver)
        creating = asyncio.ensure_future(receiver.settle([(taken, RetryAfter(3.3))]))
        await asyncio.sleep(0.3)
        server.kill()
        with pytest.raises(BrokerUnavailableError):
            await creating
        server.start()
        (taken,) = await take(receiver)
        for _ in range(20):
            with contextlib.suppress(BrokerUnavailableError):
                assert not await receiver.settle([(taken, RetryAfter(3.3))])
                break
        (taken,) = await take(receiver)
        assert taken.failures == 1
        await broker.aclose()
