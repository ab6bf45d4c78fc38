"""What is given back is back before anything else is received, or what comes later of its key would overtake it."""

import asyncio
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import pytest

from diator import Diator, ECSTEvent, Retry, contract
from diator.brokers import Ack, Delivery, MemoryBroker, Receiver, RetryAfter, Settlement, Subscription


@contract("rooms.changed", key="room")
@dataclass(frozen=True)
class Changed(ECSTEvent):
    room: str
    number: int


class EagerReceiver:
    """Hands out all that it has of a key: later ones also while earlier ones are out, as brokers may."""

    def __init__(self, count: int, lag: float) -> None:
        self.lag = lag
        self.waiting = list(range(count))
        self.failures = dict.fromkeys(range(count), 0)
        self.changed = asyncio.Event()

    async def receive(self, limit: int) -> Sequence[Delivery]:
        while not self.waiting:
            self.changed.clear()
            await self.changed.wait()
        await asyncio.sleep(0.01)
        found, self.waiting = self.waiting[:2], self.waiting[2:]
        await asyncio.sleep(self.lag)  # on their way, and maybe overtaken by an answer to settling
        return [self.delivery(number) for number in found]

    def delivery(self, number: int) -> Delivery:
        data = {"room": "blue", "number": number}
        event = {"specversion": "1.0", "id": f"{number}", "source": "test", "type": "rooms.changed"}
        body = json.dumps({**event, "partitionkey": "blue", "data": data}).encode()
        failures = self.failures[number]
        return Delivery("rooms.changed", body, failures=failures, deliveries=failures + 1, receipt=number)

    async def settle(self, settlements: Sequence[Settlement]) -> Collection[Delivery]:
        await asyncio.sleep(0.02)  # what is received meanwhile must not be later than what is on its way back
        for delivery, outcome in settlements:
            self.failures[delivery.receipt] += isinstance(outcome, RetryAfter)
            if not isinstance(outcome, Ack):
                self.waiting.append(delivery.receipt)
        self.waiting.sort()
        self.changed.set()
        return ()

    async def renew(self, deliveries: Sequence[Delivery]) -> Collection[Delivery]:
        return ()

    async def aclose(self) -> None:
        pass


class EagerBroker(MemoryBroker):
    lag = 0.0

    async def subscribe(self, subscription: Subscription) -> Receiver:
        return EagerReceiver(10, self.lag)


@pytest.mark.parametrize("concurrency", [1, 10])
@pytest.mark.parametrize("lag", [0.0, 0.05])
async def test_what_comes_while_its_key_is_held_does_not_get_overtaken(lag: float, concurrency: int) -> None:
    """With one handler, receives begin while a retry is on its way back; with ten, they began before it failed."""
    broker = EagerBroker()
    broker.lag = lag
    app = Diator("rooms", broker=broker, concurrency=concurrency, retry=Retry(attempts=3, delay=0.0))
    began: list[int] = []
    ended: list[int] = []
    over = asyncio.Event()

    @app.on_event
    async def follow(event: Changed) -> None:
        began.append(event.number)
        if event.number in {0, 5} and began.count(event.number) < 3:
            raise ConnectionError
        ended.append(event.number)
        if event.number == 9:
            over.set()

    async with app, app.worker():
        await asyncio.wait_for(over.wait(), 5)
    assert ended == list(range(10))
    assert [number for at, number in enumerate(began) if number not in began[:at]] == list(range(10))
