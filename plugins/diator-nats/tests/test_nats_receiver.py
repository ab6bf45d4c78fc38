"""Receiving over a slow network."""

import asyncio
import socket
import time

import msgspec
import pytest
from diator_nats import NatsBroker
from diator_nats.testing import NatsServer, Proxy

from diator.brokers import ACK, RELEASE, OutgoingMessage, Subscription, Topic

SOLD = Topic("shop.sold", ("shop.sold",))
BILL = Subscription("shop.bill", (SOLD,))
EVENT = '{"specversion":"1.0","id":"%d","source":"/","type":"shop.sold","data":{}}'
COUNT = 20

pytestmark = pytest.mark.once  # depends on time, not on the Python


class SlowProxy(Proxy):
    """Each answer takes 0.6 seconds."""

    def _send(self, data: bytes, target: socket.socket, *, from_client: bool) -> None:
        time.sleep(0.3)
        super()._send(data, target, from_client=from_client)


async def test_redelivered_events_are_received_though_their_lease_is_half_over_when_they_arrive() -> None:
    """Each of them needs several answers of the server, so releasing them would repeat that forever."""
    with NatsServer() as server, SlowProxy(server.port) as proxy:
        broker = NatsBroker(proxy.url, lease=2.0)
        await broker.connect()
        await broker.apply([BILL], [SOLD])
        events = [OutgoingMessage.from_bytes("shop.sold", (EVENT % at).encode()) for at in range(COUNT)]
        await broker.publish(events, timeout=5.0)
        receiver = await broker.subscribe(BILL)
        first = await asyncio.wait_for(receiver.receive(100), 30.0)
        await receiver.settle([(one, RELEASE) for one in first])
        seen: set[str] = set()
        while len(seen) < COUNT:
            found = await asyncio.wait_for(receiver.receive(100), 30.0)
            seen |= {msgspec.json.decode(one.body)["id"] for one in found}
            await receiver.settle([(one, ACK) for one in found])
        await receiver.aclose()
        await broker.aclose()
