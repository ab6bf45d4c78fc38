"""Queues and exchanges: those of topics, and those in which messages wait."""

import asyncio
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

from aiormq.abc import AbstractChannel

from diator.brokers.port import Subscription
from diator.errors import BrokerError
from diator_rabbitmq._errors import is_absent
from diator_rabbitmq._link import Link
from diator_rabbitmq._names import Names

QUORUM: dict[str, Any] = {
    "x-queue-type": "quorum",
    "x-delivery-limit": 1_000_000_000,  # RabbitMQ 4 would drop a message after 20; Diator counts by itself
}
_SAFE_MOVE = {"x-dead-letter-strategy": "at-least-once", "x-overflow": "reject-publish"}
_LONGEST_DELAY = 4_000_000_000
_UNUSED = 3_600_000
"""Milliseconds that an empty queue of delayed messages is kept."""
REGISTERED = 1.0
"""Seconds to wait after a quorum queue was declared: the server writes its list of them half a second later, and
one that is killed before never opens the queue again."""
_FRESH = 1_800.0
"""Seconds for which such a queue certainly exists after it was declared."""


def _steps() -> list[int]:
    found = [1]
    while found[-1] < _LONGEST_DELAY:
        found.append(min(max(found[-1] + 1, found[-1] * 119 // 100), _LONGEST_DELAY))
    return found


STEPS = _steps()
"""Milliseconds that messages wait: those of one queue wait equally long, so that none is behind a longer one."""
LONGEST_DELAY = STEPS[-1] / 1000
"""Seconds."""


async def size_of(link: Link, queue: str) -> int | None:
    """Return how many messages are ready in a queue, ``None`` if it is missing. Raises `~diator.BrokerError`."""
    return (await sizes_of(link, [queue]))[0]


async def sizes_of(link: Link, queues: Iterable[str]) -> list[int | None]:
    """Return the same of several, one after the other: a busy server takes seconds to open a channel for each."""
    left, found = deque(queues), list[int | None]()
    while left:
        try:
            async with link.own_channel() as channel:
                while left:
                    answer = await link.call(channel.queue_declare(left[0], passive=True))
                    found.append(answer.message_count)
                    left.popleft()
        except BrokerError as error:  # the server has closed the channel
            if not is_absent(error.__cause__):
                raise
            found.append(None)
            left.popleft()
    return found


async def has_exchange(link: Link, exchange: str) -> bool:
    """Return whether an exchange exists. Raises `~diator.BrokerError`."""
    try:
        async with link.own_channel() as channel:
            await link.call(channel.exchange_declare(exchange, passive=True))
    except BrokerError as error:
        if is_absent(error.__cause__):
            return False
        raise
    return True


class Topology:
    """Exchanges of topics, and queues in which messages wait."""

    def __init__(self, names: Names) -> None:
        self.names = names
        self._safe: set[str] = set()
        """Queues that this process knows for long enough to use them."""

    async def exchange(self, link: Link, channel: AbstractChannel, topic: str) -> str:
        """Create the exchange of a topic if it is missing, and return its name. Raises `~diator.BrokerError`."""
        name = self.names.topic(topic)
        if name not in link.known:
            await link.call(channel.exchange_declare(name, exchange_type="topic", durable=True))
            link.known.add(name)
        return name

    async def waiting(self, link: Link, one: Subscription, delay: float) -> str:
        """Return the queue in which messages of a subscription wait for so many seconds; it is created if needed."""
        step, name = _choose(link, delay, lambda step: self.names.waiting(one, step))
        async with link.locks[name]:
            if _is_stale(link, name):
                back = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": self.names.queue(one)}
                async with link.own_channel() as channel:
                    await self._declare_waiting(link, channel, name, step, back)
        return name

    async def scheduled(self, link: Link, topic: str, delay: float) -> str:
        """Return the exchange behind which messages of a topic wait; it is created if needed."""
        step, name = _choose(link, delay, lambda step: self.names.of(f"later{step}", topic))
        async with link.locks[name]:
            if _is_stale(link, name):
                async with link.own_channel() as channel:
                    back = {"x-dead-letter-exchange": await self.exchange(link, channel, topic)}
                    await link.call(
                        channel.exchange_declare(name, exchange_type="fanout", durable=True, auto_delete=True)
                    )
                    await self._declare_waiting(link, channel, name, step, back)
                    await link.call(channel.queue_bind(name, name))
        return name

    async def _declare_waiting(
        self, link: Link, channel: AbstractChannel, name: str, step: int, back: dict[str, Any]
    ) -> None:
        is_new = await size_of(link, name) is None
        await link.call(channel.queue_declare(name, durable=True, arguments=_waiting(step) | back))
        if is_new or name not in self._safe:  # which another process may have just created
            await asyncio.sleep(REGISTERED)
        self._safe.add(name)
        link.declared[name] = asyncio.get_running_loop().time()

    async def exchanges(self, link: Link, topics: Collection[str]) -> None:
        """Create the exchanges of topics that are not known. Raises `~diator.BrokerError`."""
        if self._unknown(link, topics):
            async with link.locks["topics"]:  # many tasks may publish the first event of a topic
                unknown = self._unknown(link, topics)
                if unknown:
                    async with link.own_channel() as channel:
                        for topic in unknown:
                            await self.exchange(link, channel, topic)

    def _unknown(self, link: Link, topics: Collection[str]) -> list[str]:
        return [topic for topic in topics if self.names.topic(topic) not in link.known]


def _waiting(step: int) -> dict[str, Any]:
    return {**QUORUM, **_SAFE_MOVE, "x-message-ttl": step, "x-expires": step + _UNUSED}


def _choose(link: Link, delay: float, name_of: Callable[[int], str]) -> tuple[int, str]:
    """Return how long to wait, and the queue; the next longer one if the server does not confirm what it gets."""
    at = min(bisect_left(STEPS, delay * 1000), len(STEPS) - 1)
    names = [(step, name_of(step)) for step in STEPS[at : at + 2]]
    return next((one for one in names if one[1] not in link.silent), names[0])


def _is_stale(link: Link, name: str) -> bool:
    """Return whether a queue that expires has to be declared again."""
    return asyncio.get_running_loop().time() - link.declared.get(name, -_FRESH) >= _FRESH


def too_long(subscriptions: Sequence[Subscription]) -> Iterable[tuple[Subscription, str, str]]:
    """Find the delays that are too long."""
    for one in subscriptions:
        if one.max_delay > LONGEST_DELAY:
            most = f"RabbitMQ keeps delays up to {LONGEST_DELAY:.0f} s"
            text = f"{one.name!r} retries after up to {one.max_delay:g} s; {most}"
            yield one, text, "set max_delay to a shorter time: Retry(max_delay=...)"
