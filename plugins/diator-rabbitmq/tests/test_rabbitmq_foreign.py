"""Events of other programs, and other programs that read ours: with aio-pika, used plainly."""

import asyncio
import contextlib
import json
import uuid
import zlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

import pytest
from diator_rabbitmq import RabbitBroker
from diator_rabbitmq.testing import MISSING, is_missing, shared_server

from diator import Diator, NotificationEvent, contract
from diator.brokers import ACK, MoveToDeadLetters, Subscription, Topic, parse_envelope

aio_pika: Any = pytest.importorskip("aio_pika")

pytestmark = pytest.mark.skipif(is_missing(), reason=MISSING)
TOPIC = Topic("shop.order-placed", ("shop.order-placed",))


@contract("shop.order-placed", key="order_id")
@dataclass(frozen=True)
class OrderPlaced(NotificationEvent):
    order_id: int


@contextlib.asynccontextmanager
async def plain_channel() -> AsyncGenerator[Any, None]:
    async with await aio_pika.connect(shared_server().url) as connection:
        yield await connection.channel()


def document(order_id: int) -> dict[str, Any]:
    attributes = {"specversion": "1.0", "id": f"o{order_id}", "source": "till", "type": "shop.order-placed"}
    return {**attributes, "partitionkey": str(order_id)}


async def send(prefix: str, message: Any, key: str) -> None:
    async with plain_channel() as channel:
        exchange = await channel.get_exchange(f"{prefix}:topic:{TOPIC.name}", ensure=False)
        await exchange.publish(message, routing_key=str(zlib.crc32(key.encode()) % 8))


async def test_an_event_of_another_program_is_handled_in_both_modes_with_and_without_order() -> None:
    prefix, had = f"t{uuid.uuid4().hex[:8]}", asyncio.Queue[tuple[str, int]]()
    app = Diator("shop", broker=RabbitBroker(shared_server().url, prefix=prefix))

    @app.on_event(subscription="ordered")
    async def ordered(event: OrderPlaced) -> None:
        had.put_nowait(("ordered", event.order_id))

    @app.on_event(subscription="plain", ordered=False)
    async def plain(event: OrderPlaced) -> None:
        had.put_nowait(("plain", event.order_id))

    async with app, app.worker():
        structured = {**document(1), "data": {"order_id": 1}}
        await send(prefix, aio_pika.Message(json.dumps(structured).encode()), "1")
        headers = {f"cloudEvents:{name}": value for name, value in document(2).items()}
        binary = aio_pika.Message(b'{"order_id": 2}', headers=headers, content_type="application/json")
        await send(prefix, binary, "2")
        found = [await asyncio.wait_for(had.get(), 30) for _ in range(4)]
    assert sorted(found) == [("ordered", 1), ("ordered", 2), ("plain", 1), ("plain", 2)]


async def test_an_event_of_ours_is_read_by_another_program() -> None:
    prefix = f"t{uuid.uuid4().hex[:8]}"
    app = Diator("shop", broker=RabbitBroker(shared_server().url, prefix=prefix))
    app.publishes(OrderPlaced)
    async with plain_channel() as channel:
        exchange = await channel.declare_exchange(f"{prefix}:topic:{TOPIC.name}", "topic", durable=True)
        queue = await channel.declare_queue(exclusive=True)
        await queue.bind(exchange, "#")
        async with app:
            await app.publish(OrderPlaced(7))
        message = await queue.get(timeout=30)
        await message.ack()
    assert message.content_type == "application/cloudevents+json"
    assert (message.routing_key, message.delivery_mode) == (str(zlib.crc32(b"7") % 8), 2)
    event = json.loads(message.body)
    assert (event["type"], event["partitionkey"], event["data"]) == ("shop.order-placed", "7", {"order_id": 7})


async def test_what_is_no_event_and_a_header_that_is_no_text_become_dead_letters() -> None:
    prefix = f"t{uuid.uuid4().hex[:8]}"
    broker = RabbitBroker(shared_server().url, prefix=prefix)
    await broker.connect()
    subscription = Subscription("s", (TOPIC,), ordered=True)
    await broker.apply([subscription])
    receiver = await broker.subscribe(subscription)
    headers = {"cloudEvents:specversion": "1.0", "cloudEvents:type": {"a": "table"}}
    await send(prefix, aio_pika.Message(b"\xff\x00", headers=headers), "1")
    (delivery,) = await asyncio.wait_for(receiver.receive(1), 30)
    assert delivery.read_error == "its header 'cloudEvents:type' is dict; expected a text"
    await receiver.settle([(delivery, MoveToDeadLetters("undecodable"))])
    (letter,) = await broker.dead_letters(subscription)
    assert (letter.body, letter.topic) == (b"\xff\x00", TOPIC.name)
    assert await broker.replay(subscription, [letter.id]) == [letter.id]
    (again,) = await asyncio.wait_for(receiver.receive(1), 30)
    assert again.body == b"\xff\x00"
    await receiver.settle([(again, ACK)])
    await broker.aclose()


async def test_other_headers_of_another_program_survive_a_retry_and_a_dead_letter() -> None:
    prefix = f"t{uuid.uuid4().hex[:8]}"
    broker = RabbitBroker(shared_server().url, prefix=prefix)
    await broker.connect()
    subscription = Subscription("s", (TOPIC,))
    await broker.apply([subscription])
    receiver = await broker.subscribe(subscription)
    headers = {**{f"cloudEvents_{name}": value for name, value in document(3).items()}, "x-own": "kept"}
    await send(prefix, aio_pika.Message(b"{}", headers=headers, content_type="application/json"), "3")
    (delivery,) = await asyncio.wait_for(receiver.receive(1), 30)
    assert parse_envelope(delivery.headers, delivery.body).id == "o3"
    await receiver.settle([(delivery, MoveToDeadLetters("rejected"))])
    async with plain_channel() as channel:
        queue = await channel.get_queue(f"{prefix}:dead:s", ensure=False)
        message = await queue.get(timeout=30)
        assert message.headers["x-own"] == "kept"
        assert json.loads(message.body.partition(b"\n")[0])[1][0] == "rejected"
        await message.ack()
    await broker.aclose()
