"""The wire format of diator 0.1, both ways, against what diator 0.1 itself does."""

import asyncio
import json
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from datetime import datetime, timezone
from typing import Any

import msgspec
import pytest
from diator_redis import RedisPubSubBroker
from diator_redis.testing import RedisServer
from redis.asyncio import Redis

from diator.brokers import Envelope, MoveToDeadLetters, OutgoingMessage, Subscription, Topic, parse_envelope
from diator.brokers.refusals import refusals_of

ID = "82a0b10e-1b3d-4c3c-9bdd-3934f8f824c2"
SUBSCRIPTION = Subscription("app.live", (Topic("users", ("UserJoined",)),), at_most_once=True)
OLD = {
    "message_type": "ecst_event",
    "message_name": "UserJoined",
    "message_id": ID,
    "payload": {"event_id": ID, "event_timestamp": "2023-03-06T12:11:35.103792", "user_id": 987},
}


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with RedisServer() as one:
        yield one


@asynccontextmanager
async def connected(server: RedisServer) -> AsyncGenerator[tuple[RedisPubSubBroker, Any]]:
    make: Any = Redis
    broker = RedisPubSubBroker.from_url(f"redis+pubsub://127.0.0.1:{server.port}?wire=diator-0.1")
    await broker.connect()
    async with make.from_url(server.url) as client:
        yield broker, client
    await broker.aclose()


async def test_what_it_published_is_received(server: RedisServer) -> None:
    async with connected(server) as (broker, client):
        receiver = await broker.subscribe(SUBSCRIPTION)
        assert await client.publish(f"python_diator_channel:ecst_event:{ID}", json.dumps(OLD)) == 1
        (delivery,) = await asyncio.wait_for(receiver.receive(10), 5)
        envelope = parse_envelope(delivery.headers, delivery.body)
        assert (delivery.topic, delivery.read_error) == ("users", None)
        assert (envelope.id, envelope.type, envelope.diatorkind) == (ID, "UserJoined", "ecst")
        assert envelope.time == datetime(2023, 3, 6, 12, 11, 35, 103792, timezone.utc)
        assert json.loads(bytes(envelope.data))["user_id"] == 987


@pytest.mark.parametrize(("kind", "word"), [("notification", "notification_event"), ("ecst", "ecst_event")])
async def test_its_subscribers_understand_what_is_published(server: RedisServer, kind: str, word: str) -> None:
    async with connected(server) as (broker, client):
        async with client.pubsub(ignore_subscribe_messages=True) as subscriber:
            await subscriber.psubscribe("python_diator_channel:*")
            await subscriber.get_message(timeout=5)
            time = datetime(2023, 3, 6, 12, 11, 35, 103792, timezone.utc)
            envelope = Envelope(
                specversion="1.0",
                id=ID,
                source="app",
                type="UserJoined",
                time=time,
                diatorkind=kind,
                data=msgspec.Raw(b'{"user_id": 987}'),
            )
            await broker.publish([OutgoingMessage("users", envelope)], timeout=5)
            message = await subscriber.get_message(timeout=5)
        assert message["channel"].decode() == f"python_diator_channel:{word}:{ID}"
        assert json.loads(message["data"]) == {**OLD, "message_type": word}


async def test_what_concerns_nobody_is_left_out_and_what_is_broken_is_not(
    server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with connected(server) as (broker, client):
        receiver = await broker.subscribe(SUBSCRIPTION)
        await client.publish("python_diator_channel:ecst_event:1", json.dumps({**OLD, "message_name": "Other"}))
        await client.publish("python_diator_channel:ecst_event:2", b"\xff{")
        (delivery,) = await asyncio.wait_for(receiver.receive(10), 5)
        assert delivery.read_error
        assert delivery.body == b"\xff{"
        await receiver.settle([(delivery, MoveToDeadLetters("undecodable"))])
        assert "is lost" in caplog.text


async def test_what_needs_a_store_is_refused() -> None:
    broker = RedisPubSubBroker()
    kept = SUBSCRIPTION._replace(at_most_once=False)
    ordered = SUBSCRIPTION._replace(ordered=True)
    assert not list(refusals_of(broker, [SUBSCRIPTION], SUBSCRIPTION.topics))
    for subscription in (kept, ordered):
        (refusal,) = refusals_of(broker, [subscription], subscription.topics)
        assert refusal.subscription == "app.live"
        assert "redis://" in refusal.fix
