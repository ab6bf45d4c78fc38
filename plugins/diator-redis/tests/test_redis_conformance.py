"""The suite for brokers, on real servers."""

import asyncio
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest
from diator_conformance import BrokerOptions, BrokerSuite
from diator_redis import RedisBroker, RedisPubSubBroker
from diator_redis.testing import RedisServer
from redis.asyncio import Redis


async def order(server: RedisServer, *words: str) -> None:
    """Have the server do something."""
    make: Any = Redis
    async with make.from_url(server.url) as client:
        await client.execute_command(*words)


class TestRedisBroker(BrokerSuite):
    max_examples = 12
    lives = 8
    server: ClassVar[RedisServer]

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def _server(cls) -> Iterator[None]:
        with RedisServer(durable=True, appendfsync="no") as cls.server:
            yield

    def make_broker(self, space: str, wanted: BrokerOptions) -> RedisBroker:
        return RedisBroker(self.server.url, prefix=space, lease=wanted.lease, timeout=2.0)

    async def cut_connections(self) -> None:
        await order(self.server, "CLIENT", "KILL", "TYPE", "normal")

    async def stop_server(self) -> None:
        self.server.kill()

    async def start_server(self) -> None:
        await asyncio.to_thread(self.server.start)

    async def clean_up(self, space: str) -> None:
        await order(self.server, "FLUSHALL")


class TestRedisPubSubBroker(BrokerSuite):
    server: ClassVar[RedisServer]

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def _server(cls) -> Iterator[None]:
        with RedisServer() as cls.server:
            yield

    def make_broker(self, space: str, wanted: BrokerOptions) -> RedisPubSubBroker:
        return RedisPubSubBroker(self.server.url, prefix=space, timeout=2.0)

    async def cut_connections(self) -> None:
        await order(self.server, "CLIENT", "KILL", "TYPE", "pubsub")
        await order(self.server, "CLIENT", "KILL", "TYPE", "normal")

    async def stop_server(self) -> None:
        self.server.kill()

    async def start_server(self) -> None:
        await asyncio.to_thread(self.server.start)
