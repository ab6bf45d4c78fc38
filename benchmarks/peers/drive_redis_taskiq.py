"""taskiq: a task on the stream broker of taskiq-redis, and a receiver in the same event loop, without results."""

# pyright: basic, reportMissingImports=false
# mypy: ignore-errors
# ruff: noqa: ARG001 - handlers are called, that is all
# The library lives in an environment of its own, where no type checker looks.

import asyncio
import logging

import redis
from taskiq.api import run_receiver_task
from taskiq_redis import RedisStreamBroker

from benchmarks.peers.over_broker import COUNT, MESSAGE, URL, Countdown


async def main() -> None:
    logging.disable(logging.WARNING)
    redis.Redis.from_url(URL).flushall()
    countdown, done = Countdown(), asyncio.Event()
    broker = RedisStreamBroker(URL)

    @broker.task
    async def handle(meeting_id: int, user_id: int, name: str, tags: list[str], note: str) -> None:
        if countdown.handled():
            done.set()

    broker.is_worker_process = True
    await broker.startup()
    for _ in range(COUNT):
        await handle.kiq(**MESSAGE)
    countdown.begin()
    receiving = asyncio.create_task(run_receiver_task(broker))
    await asyncio.wait({receiving, asyncio.create_task(done.wait())}, return_when=asyncio.FIRST_COMPLETED)
    countdown.tell()


if __name__ == "__main__":
    asyncio.run(main())
