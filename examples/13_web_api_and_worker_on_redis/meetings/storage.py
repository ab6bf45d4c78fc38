"""What is kept: who is in a meeting, and who was welcomed. In the Redis of the broker, since it is there."""

import os
from collections.abc import AsyncGenerator
from typing import Any

from dishka import AsyncContainer, Provider, Scope, make_async_container
from redis.asyncio import Redis

REDIS_URL = os.environ.get("REDIS_URL", "redis://localhost:6379")


class Meetings:
    def __init__(self, client: Any) -> None:  # the types of redis-py are partly unknown
        self.client = client

    async def add(self, meeting_id: int, what: str, user: str) -> bool:
        """Add a user to the ``attendees`` or the ``welcomed``; false where it is among them already."""
        return bool(await self.client.sadd(f"meetings:{meeting_id}:{what}", user))

    async def find(self, meeting_id: int, what: str) -> list[str]:
        return sorted(user.decode() for user in await self.client.smembers(f"meetings:{meeting_id}:{what}"))


async def open_meetings() -> AsyncGenerator[Meetings]:
    client: Any = Redis
    async with client.from_url(REDIS_URL) as opened:
        yield Meetings(opened)


def make_container() -> AsyncContainer:
    provider = Provider(scope=Scope.APP)  # one for the whole process
    provider.provide(open_meetings)
    return make_async_container(provider)
