"""FastStream: a durable pull subscriber, which fetches up to 100 at a time and calls the handler for each."""

# pyright: basic, reportMissingImports=false
# mypy: ignore-errors
# ruff: noqa: ARG001 - handlers are called, that is all
# The library lives in an environment of its own, where no type checker looks.

import asyncio
import logging
from dataclasses import dataclass

import nats
from faststream.nats import JStream, NatsBroker, PullSub

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
    broker = NatsBroker(URL, logger=None, log_level=logging.CRITICAL)

    @broker.subscriber(
        "faststream.joined",
        stream=JStream("faststream", declare=False),
        durable="faststream",
        pull_sub=PullSub(batch_size=100),
    )
    async def handle(event: Joined) -> None:
        if countdown.handled():
            done.set()

    client = await nats.connect(URL)
    stream = client.jetstream()
    if any(one.config.name == "faststream" for one in await stream.streams_info()):
        await stream.delete_stream("faststream")
    await stream.add_stream(name="faststream", subjects=["faststream.joined"])
    async with broker:
        for _ in range(COUNT):
            await broker.publish(MESSAGE, "faststream.joined", stream="faststream")
        countdown.begin()
        await broker.start()
        await done.wait()
        countdown.tell()


if __name__ == "__main__":
    asyncio.run(main())
