"""FastStream: a subscriber to a stream, which reads up to 100 at a time and calls the handler for each."""

# pyright: basic, reportMissingImports=false
# mypy: ignore-errors
# ruff: noqa: ARG001 - handlers are called, that is all
# The library lives in an environment of its own, where no type checker looks.

import asyncio
import logging
from dataclasses import dataclass

from faststream.redis import Redis, RedisBroker, StreamSub

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
    broker = RedisBroker(URL, logger=None, log_level=logging.CRITICAL)

    @broker.subscriber(stream=StreamSub("faststream", group="faststream", consumer="one", max_records=100))
    async def handle(event: Joined) -> None:
        if countdown.handled():
            done.set()

    async with Redis.from_url(URL) as client:
        await client.flushall()
        await client.xgroup_create("faststream", "faststream", id="0", mkstream=True)
    async with broker:
        for _ in range(COUNT):
            await broker.publish(MESSAGE, stream="faststream")
        countdown.begin()
        await broker.start()
        await done.wait()
        countdown.tell()


if __name__ == "__main__":
    asyncio.run(main())
