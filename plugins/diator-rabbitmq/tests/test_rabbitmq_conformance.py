"""The suite for brokers, on a real server."""

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import aiormq
import pytest
from diator_conformance import BrokerOptions, BrokerSuite
from diator_rabbitmq import RabbitBroker
from diator_rabbitmq.testing import MISSING, Proxy, is_missing, shared_server

from diator.brokers import Subscription, Topic

pytestmark = [pytest.mark.skipif(is_missing(), reason=MISSING), pytest.mark.once]


class Recording(RabbitBroker):
    """A broker that takes down the queues that it creates."""

    created: ClassVar[set[str]] = set()

    async def apply(self, subscriptions: Sequence[Subscription], topics: Sequence[Topic] = (), /) -> Sequence[str]:
        created = await super().apply(subscriptions, topics)
        self.created.update(created)
        return created


class TestRabbitBroker(BrokerSuite):
    case_timeout = 120.0
    receive_timeout = 40.0  # a server that was killed answers at once, and has its queues only later
    max_examples = 8
    lives = 4

    @pytest.fixture(autouse=True)
    def _server(self) -> Iterator[None]:
        self.server = shared_server()
        with Proxy(self.server.port) as self.proxy:
            yield

    def make_broker(self, space: str, wanted: BrokerOptions) -> RabbitBroker:
        return Recording(self.proxy.url, prefix=space, timeout=20.0)  # a busy machine has needed more than 4

    async def clean_up(self, space: str) -> None:
        """Delete the queues: a server that has thousands takes long to start."""
        connection: Any = aiormq.Connection(self.server.url)
        await connection.connect()
        channel = await connection.channel()
        mine = {name for name in Recording.created if name.startswith(f"{space}:")}
        for name in mine:
            await channel.queue_delete(name)
        Recording.created -= mine
        await connection.close()

    async def cut_connections(self) -> None:
        self.proxy.cut()

    async def stop_server(self) -> None:
        self.server.kill()
        self.proxy.cut()

    async def start_server(self) -> None:
        await asyncio.to_thread(self.server.start)
