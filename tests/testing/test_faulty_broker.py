"""A broker with faults is a broker like that which it stands for; and what fails while it is away."""

import asyncio
from collections.abc import Coroutine
from typing import Any, ClassVar

import pytest
from diator_conformance import BrokerOptions, BrokerSuite
from diator_conformance.brokers.messages import message

from diator import BrokerUnavailableError, NotPublishedError
from diator.brokers import ACK, MemoryBroker, Subscription, Topic
from diator.testing import Faults
from diator.testing.activity import ActivityTracker
from diator.testing.faults import Injection
from diator.testing.faulty_broker import FaultyBroker
from tests.brokers.swift_loop import run_swiftly

THINGS = Topic("things", ("thing.happened",))
BOOK = Subscription("shop.book", (THINGS,))


def around(broker: MemoryBroker, *plan: str) -> FaultyBroker:
    return FaultyBroker(broker, Injection(Faults(plan=plan)), ActivityTracker([]))


class TestFaultyBroker(BrokerSuite):
    """Over the broker in memory, without any fault."""

    max_examples = 50
    spaces: ClassVar[dict[str, MemoryBroker]] = {}

    def make_broker(self, space: str, wanted: BrokerOptions) -> FaultyBroker:
        if space not in self.spaces:
            window = wanted.duplicate_window
            self.spaces[space] = MemoryBroker(wanted.capacity, wanted.lease, duplicate_window=window)
        return around(self.spaces[space])

    async def clean_up(self, space: str) -> None:
        del self.spaces[space]

    def run(self, main: Coroutine[Any, Any, None]) -> None:
        run_swiftly(main)


async def test_receiving_and_settling_fail_once_in_an_outage() -> None:
    broker = around(MemoryBroker(), "outage: thing.happened #1")
    await broker.connect()
    await broker.apply([BOOK])
    receiver = await broker.subscribe(BOOK)
    waiting = asyncio.ensure_future(receiver.receive(1))
    await asyncio.sleep(0)
    sent = message(1, THINGS)
    with pytest.raises(NotPublishedError):
        await broker.publish([sent], timeout=1.0)
    with pytest.raises(BrokerUnavailableError, match="injected fault"):
        await waiting
    await broker.publish([sent], timeout=1.0)
    delivery = (await receiver.receive(1))[0]
    with pytest.raises(BrokerUnavailableError, match="injected fault"):
        await receiver.settle([(delivery, ACK)])
    assert not await receiver.settle([(delivery, ACK)])
    await broker.aclose()
