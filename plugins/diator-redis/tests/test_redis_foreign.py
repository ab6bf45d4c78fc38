"""Events that another program writes with an SDK of CloudEvents: handled from a stream, and from a channel."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from diator_redis import RedisBroker, RedisPubSubBroker
from diator_redis.testing import RedisServer
from redis.asyncio import Redis

from diator import Diator, NotificationEvent, contract


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with RedisServer() as one:
        yield one


@contract("foreign.sold")
@dataclass(frozen=True)
class Sold(NotificationEvent):
    n: int


def documents() -> list[bytes]:
    plain = {"specversion": "1.0", "id": "1", "source": "/other", "type": "foreign.sold"}
    by_hand: list[dict[str, Any]] = [
        {"data": {"n": 0}},
        {"data_base64": base64.b64encode(b'{"n": 1}').decode()},
        {"data": {"n": 2}, "time": "2016-12-31T23:59:60Z"},
        {"data": {"n": 3}, "datacontenttype": None, "partitionkey": None, "traceparent": None, "time": None},
        {"data": {"n": 4}, "partitionkey": 5, "flag": True, "diatorversion": "1"},
    ]
    attributes = {"type": "foreign.sold", "source": "/sdk", "datacontenttype": "application/json"}
    by_sdk = [CloudEvent({**attributes}, {"n": 5}), CloudEvent({**attributes}, b'{"n": 6}')]
    by_sdk.append(CloudEvent({**attributes, "extension": None, "sequence": 1}, '{"n": 7}'))
    return [json.dumps(plain | one).encode() for one in by_hand] + [JSONFormat().write(one) for one in by_sdk]


@pytest.mark.parametrize("kind", [RedisBroker, RedisPubSubBroker])
async def test_events_of_other_programs_are_handled(
    server: RedisServer, kind: type[RedisBroker | RedisPubSubBroker]
) -> None:
    app = Diator("foreign", broker=kind(server.url))
    handled: set[int] = set()

    @app.on_event(subscription="foreign.mail", delivery="at-most-once")
    async def mail(event: Sold) -> None:
        handled.add(event.n)

    make: Any = Redis
    async with make.from_url(server.url) as client, app, app.worker():

        async def publish(document: bytes) -> None:
            if kind is RedisBroker:
                await client.xadd("diator:{foreign.sold}:events", {"e": document})
            else:
                await client.publish("diator:foreign.sold", document)

        while not handled:  # a channel keeps nothing for a worker that starts
            await publish(documents()[2].replace(b'"n": 2', b'"n": 100'))
            await asyncio.sleep(0.05)
        for document in documents():
            await publish(document)
        for _ in range(100):
            await asyncio.sleep(0.1)
            if len(handled) == 9:
                break
    assert handled == {*range(8), 100}
