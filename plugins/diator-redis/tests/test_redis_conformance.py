"""The suite for brokers, on real servers."""

import asyncio
from collections.abc import Iterator
from typing import ClassVar

import pytest
from redis.asyncio import Redis

from diator.conformance import BrokerSuite, Wanted
from diator_redis import RedisBroker, RedisPubSubBroker
from diator_redis.testing import Proxy, RedisServer


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with RedisServer() as one:
        yield one


class TestRedisBroker(BrokerSuite):
    server: ClassVar[RedisServer]

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def _server(cls) -> Iterator[None]:
        with RedisServer(durable=True, appendfsync="no") as cls.server:
            with Proxy(cls.server.port) as cls.proxy:
                yield

    proxy: ClassVar[Proxy]

    def make_broker(self, space: str, wanted: Wanted) -> RedisBroker:
        return RedisBroker(self.proxy.url, prefix=space, lease=wanted.lease, timeout=2.0)

    async def cut_connections(self) -> None:
        self.proxy.cut()

    async def stop_server(self) -> None:
        self.server.kill()

    async def start_server(self) -> None:
        await asyncio.to_thread(self.server.start)

    async def clean_up(self, space: str) -> None:
        async with Redis.from_url(self.server.url) as client:
            await client.flushall()


class TestRedisPubSubBroker(BrokerSuite):
    server: ClassVar[RedisServer]
    proxy: ClassVar[Proxy]

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def _server(cls) -> Iterator[None]:
        with RedisServer() as cls.server:
            with Proxy(cls.server.port) as cls.proxy:
                yield

    def make_broker(self, space: str, wanted: Wanted) -> RedisPubSubBroker:
        return RedisPubSubBroker(self.proxy.url, prefix=space, timeout=2.0)

    async def cut_connections(self) -> None:
        self.proxy.cut()

    async def stop_server(self) -> None:
        self.server.kill()

    async def start_server(self) -> None:
        await asyncio.to_thread(self.server.start)
