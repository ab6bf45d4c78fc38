"""diator 0.1.2 of PyPI, which publishes to Pub/Sub: its broker for Redis, without the mediator above it."""

# pyright: basic, reportMissingImports=false
# mypy: ignore-errors
# The library lives in an environment of its own, where no type checker looks.

import asyncio
from uuid import uuid4

from diator.message_brokers.protocol import Message
from diator.message_brokers.redis import RedisMessageBroker
from redis.asyncio import Redis

from benchmarks.peers.over_broker import COUNT, MESSAGE, URL, Countdown


async def main() -> None:
    async with Redis.from_url(URL) as client:
        broker = RedisMessageBroker(client)
        countdown = Countdown()
        countdown.begin()
        for _ in range(COUNT):
            message = Message(
                message_name="Joined", message_type="notification_event", message_id=uuid4(), payload=MESSAGE
            )
            await broker.send_message(message)
            countdown.handled()
        countdown.tell()


if __name__ == "__main__":
    asyncio.run(main())
