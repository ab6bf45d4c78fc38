"""The suite for brokers, on a real server."""

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any, ClassVar

import nats
import pytest
from diator_conformance import BrokerOptions, BrokerSuite
from diator_nats import NatsBroker
from diator_nats.testing import NatsServer, Proxy
from nats.js.errors import NotFoundError

pytestmark = pytest.mark.once  # it takes long, and depends little on the Python


class TestNatsBroker(BrokerSuite):
    case_timeout = 60.0
    receive_timeout = 10.0
    short_lease = 0.8  # of which a receiver asks for messages within 0.7, after several exchanges with the server
    max_examples = 12
    lives = 8
    server: ClassVar[NatsServer]
    proxy: ClassVar[Proxy]

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def _server(cls) -> Iterator[None]:
        with NatsServer() as cls.server, Proxy(cls.server.port) as cls.proxy:
            yield

    def make_broker(self, space: str, wanted: BrokerOptions) -> NatsBroker:
        return NatsBroker(
            self.proxy.url, prefix=space, lease=wanted.lease, timeout=2.0, duplicate_window=wanted.duplicate_window
        )

    async def cut_connections(self) -> None:
        self.proxy.cut()

    async def stop_server(self) -> None:
        self.server.kill()

    async def start_server(self) -> None:
        await asyncio.to_thread(self.server.start)

    async def clean_up(self, space: str) -> None:
        client: Any = await nats.connect(self.server.url)  # pyright: ignore[reportUnknownMemberType]  # has no types
        for name in ("events", "state"):
            with contextlib.suppress(NotFoundError):
                await client.jetstream().delete_stream(f"{space}_{name}")
        await client.close()
