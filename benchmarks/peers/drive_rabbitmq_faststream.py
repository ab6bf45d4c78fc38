"""FastStream: a subscriber to a quorum queue with a prefetch of 200, each message acknowledged after its handler."""

# pyright: basic, reportMissingImports=false
# mypy: ignore-errors
# ruff: noqa: ARG001 - handlers are called, that is all
# The library lives in an environment of its own, where no type checker looks.

import asyncio
import logging
from dataclasses import dataclass

from faststream.rabbit import Channel, QueueType, RabbitBroker, RabbitQueue

from benchmarks.peers.over_broker import COUNT, MESSAGE, URL, Countdown


@dataclass
class Joined:
    meeting_id: int
    user_id: int
    name: str
    tags: list[str]
    note: str


async def main() -> None:
    countdown, done = Countdown(), asyncio.Event()
    broker = RabbitBroker(URL, logger=None, log_level=logging.CRITICAL, default_channel=Channel(prefetch_count=200))
    queue = RabbitQueue("faststream", queue_type=QueueType.QUORUM, durable=True)

    @broker.subscriber(queue)
    async def handle(event: Joined) -> None:
        if countdown.handled():
            done.set()

    await broker.connect()
    declared = await broker.declare_queue(queue)
    await declared.purge()
    for _ in range(COUNT):
        await broker.publish(MESSAGE, queue="faststream", persist=True)
    countdown.begin()
    await broker.start()
    await done.wait()
    countdown.tell()


if __name__ == "__main__":
    asyncio.run(main())
