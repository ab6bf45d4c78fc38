"""The suite for brokers, on a real server."""

import asyncio
from collections.abc import Iterator

import pytest
from diator_conformance import BrokerOptions, BrokerSuite
from diator_rabbitmq import RabbitBroker
from diator_rabbitmq.testing import MISSING, Proxy, is_missing, shared_server

pytestmark = [pytest.mark.skipif(is_missing(), reason=MISSING), pytest.mark.once]


class TestRabbitBroker(BrokerSuite):
    case_timeout = 60.0
    receive_timeout = 15.0
    max_examples = 8
    lives = 4

    @pytest.fixture(autouse=True)
    def _server(self) -> Iterator[None]:
        self.server = shared_server()
        with Proxy(self.server.port) as self.proxy:
            yield

    def make_broker(self, space: str, wanted: BrokerOptions) -> RabbitBroker:
        return RabbitBroker(self.proxy.url, prefix=space)

    async def cut_connections(self) -> None:
        self.proxy.cut()

    async def stop_server(self) -> None:
        self.server.kill()
        self.proxy.cut()

    async def start_server(self) -> None:
        await asyncio.to_thread(self.server.start)
